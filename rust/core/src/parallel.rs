//! Run numbered pieces of work on a private pool, handing them out in order: files are read from
//! front to back, and results come back in order whatever the timing.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Mutex;

use rayon::ThreadPool;

use crate::error::{Error, Result};

/// Where pieces of work run.
#[derive(Debug)]
pub enum Parallel<'a> {
    /// On the calling thread.
    Here,
    /// On the threads of a pool.
    Pool(&'a ThreadPool),
}

impl Parallel<'_> {
    /// How many pieces run at once.
    pub fn threads(&self) -> usize {
        match self {
            Self::Here => 1,
            Self::Pool(pool) => pool.current_num_threads(),
        }
    }

    /// `work(0), work(1), …, work(n − 1)`. After the first error no further piece begins.
    ///
    /// # Errors
    /// The first error that a piece gave.
    pub fn map<T: Send>(
        &self,
        n: usize,
        work: impl Fn(usize) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        let Self::Pool(pool) = self else {
            return (0..n).map(work).collect();
        };
        let next = AtomicUsize::new(0);
        let failed = AtomicBool::new(false);
        let error: Mutex<Option<Error>> = Mutex::new(None);
        let results: Vec<Mutex<Option<T>>> = (0..n).map(|_| Mutex::new(None)).collect();
        let lock = |slot: &Mutex<Option<T>>, value| {
            *slot.lock().unwrap_or_else(|e| e.into_inner()) = value
        };
        pool.scope(|scope| {
            for _ in 0..pool.current_num_threads().min(n) {
                scope.spawn(|_| loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= n || failed.load(Ordering::Relaxed) {
                        return;
                    }
                    match work(number) {
                        Ok(value) => lock(&results[number], Some(value)),
                        Err(cause) => {
                            failed.store(true, Ordering::Relaxed);
                            error.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(cause);
                        }
                    }
                });
            }
        });
        match error.into_inner().unwrap_or_else(|e| e.into_inner()) {
            Some(error) => Err(error),
            None => Ok(results
                .into_iter()
                .filter_map(|slot| slot.into_inner().unwrap_or_else(|e| e.into_inner()))
                .collect()),
        }
    }
}
