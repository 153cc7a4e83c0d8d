//! Calls code that may panic on bad input, without the panic's message on the screen.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    static CAPTURING: Cell<bool> = const { Cell::new(false) };
}

/// The result of `work`, or its message when it panicked. Panics of other threads are shown as ever.
pub(super) fn capture_panic<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let shown = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !CAPTURING.get() {
                shown(panic);
            }
        }));
    });
    let before = CAPTURING.replace(true);
    // What `work` borrowed is dropped or only read after a panic.
    let result = catch_unwind(AssertUnwindSafe(work));
    CAPTURING.set(before);
    result.map_err(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("it panicked").to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::capture_panic;

    #[test]
    fn a_panic_becomes_an_error_with_its_message() {
        assert_eq!(capture_panic(|| 1), Ok(1));
        assert_eq!(capture_panic(|| -> i32 { panic!("bad file {}", 7) }), Err("bad file 7".to_owned()));
    }
}
