//! A panic in a task is swallowed by its runtime: here it fails the test.

use std::{cell::Cell, sync::Once};

thread_local!(static PANICS: Cell<u32> = const { Cell::new(0) });

/// Counts panics of this thread from now on.
pub fn watch() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.set(PANICS.get() + 1);
            report(panic);
        }));
    });
    PANICS.set(0);
}

/// Fails if there was one.
pub fn none_since() {
    assert_eq!(PANICS.get(), 0, "a task panicked");
}
