//! What several faults want of one thing at one time, each under its own number: the end of one takes nothing from the others.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
};

/// What they want.
pub struct Wants<T>(Mutex<BTreeMap<u64, T>>);

impl<T> Default for Wants<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Copy> Wants<T> {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, T>> {
        self.0.lock().expect("no holder of what faults want panics")
    }

    /// The fault of this number wants something, or nothing any more.
    pub fn set(&self, number: u64, want: Option<T>) {
        match want {
            Some(want) => self.lock().insert(number, want),
            None => self.lock().remove(&number),
        };
    }

    /// No fault wants anything any more.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// What each of them wants, in the order of their numbers.
    pub fn all(&self) -> Vec<T> {
        self.lock().values().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_one_fault_leaves_what_the_others_want() {
        let wants = Wants::<u64>::default();
        for (number, want) in [(1, Some(400)), (2, Some(20)), (2, None)] {
            wants.set(number, want);
        }
        assert_eq!(wants.all(), [400]);
        wants.clear();
        assert_eq!(wants.all(), Vec::<u64>::new());
    }
}
