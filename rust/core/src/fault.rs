//! Faults on demand, to test what a merge leaves behind when it is stopped at a given point.
//!
//! `MERGEPLAN_FAULT=write:7:kill` kills the process at the seventh time that it passes the point
//! `write`; `:error` makes that step fail with an input/output error instead; `:stop` stops the process
//! there until it is sent SIGCONT, so that something may happen meanwhile. Without the variable a point
//! costs one load.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::OnceLock;

struct Fault {
    point: String,
    left: AtomicU64,
    kind: Kind,
}

enum Kind {
    Error,
    Kill,
    Stop,
}

/// Pass a point.
///
/// # Errors
/// The fault that was asked for.
pub fn hit(point: &str) -> std::io::Result<()> {
    static FAULT: OnceLock<Option<Fault>> = OnceLock::new();
    let Some(fault) = FAULT.get_or_init(from_environment) else { return Ok(()) };
    if fault.point != point || fault.left.fetch_sub(1, Ordering::Relaxed) != 1 {
        return Ok(());
    }
    #[cfg(unix)]
    {
        use rustix::process::{getpid, kill_process, Signal};
        let _ = match fault.kind {
            // As a kill from outside: no destructor runs, nothing is flushed.
            Kind::Kill => kill_process(getpid(), Signal::KILL),
            Kind::Stop => kill_process(getpid(), Signal::STOP),
            Kind::Error => Ok(()),
        };
    }
    match fault.kind {
        Kind::Kill => std::process::abort(),
        Kind::Stop => Ok(()),
        Kind::Error => {
            Err(std::io::Error::other(format!("fault at `{point}`, asked for by MERGEPLAN_FAULT")))
        }
    }
}

fn from_environment() -> Option<Fault> {
    let text = std::env::var("MERGEPLAN_FAULT").ok()?;
    let mut parts = text.split(':');
    let point = parts.next()?.to_owned();
    let left = AtomicU64::new(parts.next()?.parse().ok().filter(|&n: &u64| n > 0)?);
    let kind = match parts.next()? {
        "kill" => Kind::Kill,
        "stop" => Kind::Stop,
        _ => Kind::Error,
    };
    Some(Fault { point, left, kind })
}
