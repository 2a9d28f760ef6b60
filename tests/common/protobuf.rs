//! Just enough of the protobuf wire format to read and write the messages of the tests by hand.

/// A field's value as it stands on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Number(u64),
    Bytes(Vec<u8>),
}

impl Value {
    pub fn number(&self) -> u64 {
        match self {
            Self::Number(number) => *number,
            Self::Bytes(bytes) => panic!("expected a varint, got the bytes {bytes:02x?}"),
        }
    }

    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Number(number) => panic!("expected bytes, got the varint {number}"),
        }
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.bytes().to_vec()).expect("strings are UTF-8")
    }

    pub fn message(&self) -> Fields {
        Fields::read(self.bytes())
    }
}

/// A message: its fields in the order they came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields(pub Vec<(u64, Value)>);

impl Fields {
    pub fn read(mut bytes: &[u8]) -> Self {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let value = match key & 7 {
                0 => Value::Number(varint(&mut bytes)),
                2 => {
                    let length = usize::try_from(varint(&mut bytes)).unwrap();
                    let (value, rest) = bytes.split_at(length);
                    bytes = rest;
                    Value::Bytes(value.to_vec())
                }
                kind => panic!("the messages of these tests have no fields of wire type {kind}"),
            };
            fields.push((key >> 3, value));
        }
        Self(fields)
    }

    pub fn get(&self, number: u64) -> Option<&Value> {
        self.0.iter().rev().find(|(at, _)| *at == number).map(|(_, value)| value)
    }

    pub fn expect(&self, number: u64) -> &Value {
        self.get(number).unwrap_or_else(|| panic!("expected field {number} in {self:?}"))
    }

    /// A string, empty if it is absent, as proto3 has it.
    pub fn text(&self, number: u64) -> String {
        self.get(number).map(Value::text).unwrap_or_default()
    }

    /// A varint, 0 if it is absent.
    pub fn number(&self, number: u64) -> u64 {
        self.get(number).map(Value::number).unwrap_or_default()
    }
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().expect("a varint that ends");
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return value;
        }
    }
    panic!("a varint of more than ten bytes");
}

pub fn zigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

fn push_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A length-delimited field.
pub fn bytes_field(number: u64, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    push_varint(number << 3 | 2, &mut out);
    push_varint(bytes.len() as u64, &mut out);
    out.extend_from_slice(bytes);
    out
}

/// A varint field.
pub fn number_field(number: u64, value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    push_varint(number << 3, &mut out);
    push_varint(value, &mut out);
    out
}
