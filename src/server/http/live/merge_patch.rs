//! JSON Merge Patch (RFC 7396): what has changed between two values, and the value again.
//!
//! `null` removes a key, so values between which patches are made have no null.

use serde_json::{Map, Value};

/// What makes `after` of `before`; `None` if they are equal. Both are objects at the top.
pub fn diff(before: &Value, after: &Value) -> Option<Value> {
    let (Value::Object(old), Value::Object(new)) = (before, after) else {
        return (before != after).then(|| after.clone());
    };
    let mut patch = Map::new();
    for (key, value) in new {
        let changed = old.get(key).map_or_else(|| Some(value.clone()), |known| diff(known, value));
        if let Some(changed) = changed {
            patch.insert(key.clone(), changed);
        }
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    (!patch.is_empty()).then(|| patch.into())
}

/// Changes a value as a patch says.
pub fn apply(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Map::new().into();
    }
    let Value::Object(object) = target else { unreachable!("made one just now") };
    for (key, value) in patch {
        if value.is_null() {
            object.shift_remove(&key);
        } else {
            apply(object.entry(key).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn a_patch_has_what_changed_and_nothing_else() {
        let before = json!({ "now": 1, "rows": { "a": { "n": 1, "s": "x" }, "b": { "n": 2 } }, "dates": [1, 2] });
        let after = json!({ "now": 2, "rows": { "a": { "n": 1, "s": "y" }, "c": { "n": 3 } }, "dates": [1] });
        let expected = json!({ "now": 2, "rows": { "a": { "s": "y" }, "c": { "n": 3 }, "b": null }, "dates": [1] });
        assert_eq!(diff(&before, &after), Some(expected));
        assert_eq!(diff(&after, &after), None);
    }

    #[test]
    fn the_examples_of_the_rfc() {
        for (original, patch, result) in [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b","b":"c"}), json!({"a":null}), json!({"b":"c"})),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}})),
            (json!(["a"]), json!({"a":"b","c":null}), json!({"a":"b"})),
            (json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
        ] {
            let mut target = original;
            apply(&mut target, patch);
            assert_eq!(target, result);
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            (0..4i64).prop_map(Value::from),
            "[ab]{0,2}".prop_map(Value::from)
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[abc]", inner, 0..4)
                    .prop_map(|map| map.into_iter().collect::<Map<_, _>>().into()),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_patch_makes_the_second_value_of_the_first(before in value(), after in value()) {
            let mut patched = before.clone();
            if let Some(patch) = diff(&before, &after) {
                apply(&mut patched, patch);
            }
            prop_assert_eq!(patched, after);
        }
    }
}
