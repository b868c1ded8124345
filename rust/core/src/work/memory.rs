//! Whether the system has memory to give. What a run allocates later cannot fail in good order: a
//! process whose limit is reached in the middle of it is ended.

use crate::error::{Error, Result};

/// A thread's stack and what allocators keep for it, and those of one more thread. Asked for before
/// the threads begin: where the C library finds no memory for a thread's own variables, it ends the
/// process.
const THREAD: u64 = (2 << 20) + (256 << 10);

/// Check that so many bytes can be had now.
///
/// # Errors
/// [`Error::NoMemory`]
pub(crate) fn check_memory(needed: u64) -> Result<()> {
    let wanted = usize::try_from(needed).ok();
    let there = wanted.is_some_and(|n| Vec::<u8>::new().try_reserve_exact(n).is_ok());
    if there {
        Ok(())
    } else {
        Err(Error::NoMemory { needed })
    }
}

/// The most of `limit` that can be had now beside so many threads, by halves; `least` in any case.
///
/// # Errors
/// [`Error::NoMemory`] where not even that can be had.
pub(crate) fn memory_within(limit: u64, least: u64, threads: usize) -> Result<u64> {
    let beside = THREAD * (threads as u64 + 1);
    let mut within = limit;
    while within > least {
        if check_memory(within.saturating_add(beside)).is_ok() {
            return Ok(within);
        }
        within /= 2;
    }
    check_memory(least.saturating_add(beside)).map(|()| least.min(limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_cannot_give_is_an_error_or_less() {
        check_memory(1 << 20).unwrap();
        // Beyond what a process can address.
        assert!(
            matches!(check_memory(1 << 60), Err(Error::NoMemory { needed }) if needed == 1 << 60)
        );
        assert!(matches!(memory_within(1 << 62, 1 << 60, 1), Err(Error::NoMemory { .. })));
        let within = memory_within(1 << 60, 1 << 10, 1).unwrap();
        assert!((1 << 10..1 << 60).contains(&within), "{within}");
        assert_eq!(memory_within(1 << 10, 1 << 20, 1).unwrap(), 1 << 10);
    }
}
