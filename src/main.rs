//! The `flowcast` program: an exit code around [`flowcast::commands::run`].

use std::process::ExitCode;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The number of `mi_option_purge_delay` in mimalloc's `include/mimalloc.h`.
#[cfg(feature = "mimalloc")]
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

fn main() -> ExitCode {
    #[cfg(feature = "mimalloc")]
    give_back_freed_memory();
    flowcast::commands::run()
}

/// Pages without a live allocation go back to the kernel at once. mimalloc would wait for some seconds, and then for
/// the next allocations: after ten thousand clients have come, each idle one would cost 200 B more. The environment
/// (`MIMALLOC_PURGE_DELAY`, ms) has the last word.
#[cfg(feature = "mimalloc")]
fn give_back_freed_memory() {
    // SAFETY: sets a number in a static table that is as long as mimalloc's enum; nothing else runs yet.
    #[expect(unsafe_code, reason = "the crate has no safe function for the allocator's options")]
    unsafe {
        libmimalloc_sys::mi_option_set_default(PURGE_DELAY, 0);
    }
}

#[cfg(all(test, feature = "mimalloc"))]
mod tests {
    use super::*;

    #[test]
    fn freed_memory_is_given_back_without_delay() {
        #[expect(unsafe_code, reason = "reads a number of the allocator")]
        // SAFETY: as above.
        let delay = || unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        assert_eq!(delay(), 1000, "mimalloc's own default: the number is that of another option now");
        give_back_freed_memory();
        assert_eq!(delay(), 0);
    }
}
