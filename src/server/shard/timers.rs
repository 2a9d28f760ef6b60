//! Timers of one constant delay: a queue, because what is set first is due first.
//!
//! An entry is never removed early; whoever takes it checks whether it still means anything.

use std::collections::VecDeque;

/// Items that become due `delay_ms` after they were pushed.
#[derive(Debug)]
pub struct Timeouts<T> {
    delay_ms: u64,
    queue: VecDeque<(u64, T)>,
}

impl<T> Timeouts<T> {
    /// A queue whose items become due after `delay_ms`.
    pub fn new(delay_ms: u64) -> Self {
        Self { delay_ms, queue: VecDeque::new() }
    }

    /// How long after it was pushed an item becomes due, ms.
    pub fn delay_ms(&self) -> u64 {
        self.delay_ms
    }

    /// Sets a timer. `now_ms` never runs backwards.
    pub fn push(&mut self, now_ms: u64, item: T) {
        self.queue.push_back((now_ms + self.delay_ms, item));
    }

    /// Takes an item that is due.
    pub fn pop(&mut self, now_ms: u64) -> Option<T> {
        self.queue.pop_front_if(|(due_ms, _)| *due_ms <= now_ms).map(|(_, item)| item)
    }

    /// Takes the oldest item, due or not.
    pub fn pop_oldest(&mut self) -> Option<T> {
        self.queue.pop_front().map(|(_, item)| item)
    }

    /// The item that is due next.
    pub fn front(&self) -> Option<&T> {
        self.queue.front().map(|(_, item)| item)
    }

    /// When the next item is due.
    pub fn next_ms(&self) -> Option<u64> {
        self.queue.front().map(|(due_ms, _)| *due_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_due_after_the_delay_in_the_order_they_were_set() {
        let mut timeouts = Timeouts::new(10);
        timeouts.push(0, 'a');
        timeouts.push(3, 'b');
        assert_eq!(timeouts.next_ms(), Some(10));
        assert_eq!(
            (timeouts.pop(9), timeouts.pop(12), timeouts.pop(12), timeouts.pop(13)),
            (None, Some('a'), None, Some('b'))
        );
        assert_eq!((timeouts.pop(99), timeouts.next_ms()), (None, None));
    }
}
