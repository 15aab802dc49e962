//! What several faults want of one thing at one time, each under its own number: the end of one takes nothing from the others.

use std::collections::BTreeMap;

/// What they want.
pub struct Wants<T>(BTreeMap<u64, T>);

impl<T> Default for Wants<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Copy> Wants<T> {
    /// The fault of this number wants something, or nothing any more.
    pub fn set(&mut self, number: u64, want: Option<T>) {
        match want {
            Some(want) => self.0.insert(number, want),
            None => self.0.remove(&number),
        };
    }

    /// No fault wants anything any more.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// What each of them wants, in the order of their numbers.
    pub fn all(&self) -> impl DoubleEndedIterator<Item = T> + '_ {
        self.0.values().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_one_fault_leaves_what_the_others_want() {
        let mut wants = Wants::default();
        for (number, want) in [(1, Some(400)), (2, Some(20)), (2, None)] {
            wants.set(number, want);
        }
        assert_eq!(wants.all().max(), Some(400));
        wants.clear();
        assert_eq!(wants.all().max(), None);
    }
}
