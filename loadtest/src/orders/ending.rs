//! How connections ended, and which orders explain it.

use super::order::{Order, OrderKind};

/// How long after an order its connection may show the end, or another one may hide it.
const NEAR_NS: u64 = 2_000_000_000;

/// The end of a connection, or a connection that did not come about, as a client saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenEnding {
    /// When.
    pub at_ns: u64,
    /// The code of the close frame, if there was one.
    pub code: Option<u16>,
    /// The status of a refusal.
    pub status: Option<u16>,
    /// For people.
    pub cause: String,
}

impl SeenEnding {
    /// Whether `order` explains it.
    fn is_by(&self, order: &Order) -> bool {
        match order.kind {
            OrderKind::Reset | OrderKind::ResetMidFrame => self.code.is_none() && self.status.is_none(),
            // What the server had not read of the client yet turns a close into a reset (RFC 1122 §4.2.2.13).
            OrderKind::Close => self.status.is_none() && (self.code.is_none() || self.code == order.code),
            OrderKind::RefuseRecovery => self.code == Some(1008) || self.status == Some(404),
            OrderKind::ExpireToken => self.code == Some(4401) || self.status == Some(401),
            OrderKind::RefuseUpgrade | OrderKind::RefuseNegotiate => {
                self.status.is_some() && self.status == order.status
            }
            _ => false,
        }
    }

    fn is_near(&self, order: &Order) -> bool {
        // A token that has expired shows when its client connects again.
        let is_later = order.kind == OrderKind::ExpireToken && order.status.is_some() && self.at_ns > order.at_ns;
        is_later || self.at_ns.abs_diff(order.at_ns) < NEAR_NS
    }
}

/// What became of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It happened.
    Seen,
    /// Nobody was there who could see it, or another order hides it.
    Moot,
    /// It did not happen.
    Unseen,
}

/// The ends of one client's connections, against its orders about ends, both in order of time. Returns the effect of
/// each order, and the ends without an order.
pub fn match_endings<'a>(
    orders: &[&Order],
    endings: &'a [SeenEnding],
    cut_ns: u64,
) -> (Vec<Effect>, Vec<&'a SeenEnding>) {
    let mut effects = vec![Effect::Unseen; orders.len()];
    let mut unordered = Vec::new();
    for ending in endings {
        // A close that came as a close before one that came as a reset.
        let exact = |order: &Order| ending.is_by(order) && (order.kind != OrderKind::Close || ending.code.is_some());
        let open = |wanted: &dyn Fn(&Order) -> bool| {
            let is_open = |at: &usize| effects[*at] == Effect::Unseen && ending.is_near(orders[*at]);
            (0..orders.len()).filter(is_open).find(|&at| wanted(orders[at]))
        };
        match open(&exact).or_else(|| open(&|order| ending.is_by(order))) {
            Some(at) => effects[at] = Effect::Seen,
            None => unordered.push(ending),
        }
    }
    for (order, effect) in orders.iter().zip(&mut effects) {
        let is_hidden = endings.iter().any(|ending| ending.is_near(order))
            || order.at_ns + NEAR_NS > cut_ns
            || order.kind == OrderKind::ExpireToken && order.status.is_some();
        if *effect == Effect::Unseen && is_hidden {
            *effect = Effect::Moot;
        }
    }
    (effects, unordered)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::orders::order::Target;

    const SECOND: u64 = 1_000_000_000;

    fn order(kind: OrderKind, at_s: u64, code: Option<u16>, status: Option<u16>) -> Order {
        Order {
            kind,
            fault: 1,
            tick: 1,
            at_ns: at_s * SECOND,
            target: Target::Client(1),
            frames: Vec::new(),
            code,
            status,
            ack_id: None,
            count: 0,
        }
    }

    fn ending(at_s: u64, code: Option<u16>, status: Option<u16>) -> SeenEnding {
        SeenEnding { at_ns: at_s * SECOND, code, status, cause: "gone".to_owned() }
    }

    #[test]
    fn an_end_with_an_order_is_seen_and_one_without_is_told() {
        let orders = [order(OrderKind::Reset, 10, None, None), order(OrderKind::Close, 20, Some(1011), None)];
        let orders: Vec<&Order> = orders.iter().collect();
        let endings = [ending(10, None, None), ending(20, Some(1011), None), ending(21, Some(1008), None)];
        let (effects, unordered) = match_endings(&orders, &endings, 99 * SECOND);
        assert_eq!((effects, unordered), (vec![Effect::Seen, Effect::Seen], vec![&endings[2]]));
    }

    #[test]
    fn an_order_without_an_end_is_unseen_unless_the_run_ends_or_another_end_hides_it() {
        let orders = [
            order(OrderKind::Reset, 10, None, None),
            order(OrderKind::Reset, 20, None, None),
            order(OrderKind::ResetMidFrame, 20, None, None),
            order(OrderKind::Reset, 98, None, None),
        ];
        let orders: Vec<&Order> = orders.iter().collect();
        let endings = [ending(20, None, None)];
        let (effects, unordered) = match_endings(&orders, &endings, 99 * SECOND);
        assert_eq!(effects, [Effect::Unseen, Effect::Seen, Effect::Moot, Effect::Moot]);
        assert_eq!(unordered, Vec::<&SeenEnding>::new());
    }

    #[test]
    fn a_refusal_is_explained_by_its_status_only() {
        let refused = order(OrderKind::RefuseUpgrade, 5, None, Some(503));
        let endings = [ending(5, None, Some(503)), ending(6, None, Some(429))];
        let (effects, unordered) = match_endings(&[&refused], &endings, 99 * SECOND);
        assert_eq!((effects, unordered), (vec![Effect::Seen], vec![&endings[1]]));
    }
}
