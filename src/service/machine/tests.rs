//! Machines for tests.
#![allow(clippy::disallowed_methods, reason = "tests may read the environment and the clock")]

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use super::*;

/// A machine with these variables, whose clock stands still.
pub struct Still<'a>(pub &'a [(&'a str, &'a str)]);

impl Machine for Still<'_> {
    fn variable(&self, name: &str) -> Option<OsString> {
        self.0.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
    }

    fn variables(&self) -> Vec<OsString> {
        self.0.iter().map(|(key, _)| key.into()).collect()
    }

    fn home(&self) -> Option<PathBuf> {
        self.folder("HOME")
    }

    fn temporary(&self) -> PathBuf {
        std::env::temp_dir()
    }

    fn clock(&self) -> fn() -> Time {
        Time::default
    }

    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }
}

/// A machine without an environment, by this clock.
pub struct Bare<F>(F);

impl<F: Fn() -> Duration + Sync> Machine for Bare<F> {
    fn variable(&self, _: &str) -> Option<OsString> {
        None
    }

    fn variables(&self) -> Vec<OsString> {
        Vec::new()
    }

    fn home(&self) -> Option<PathBuf> {
        None
    }

    fn temporary(&self) -> PathBuf {
        std::env::temp_dir()
    }

    fn clock(&self) -> fn() -> Time {
        Time::default
    }

    fn elapsed(&self) -> Duration {
        (self.0)()
    }
}

/// A machine on which each look at the clock takes a second.
pub fn ticking() -> impl Machine {
    let looks = AtomicU64::new(0);
    Bare(move || Duration::from_secs(looks.fetch_add(1, Relaxed)))
}

/// A machine whose time passes.
pub fn real() -> impl Machine {
    let begun = Instant::now();
    Bare(move || begun.elapsed())
}

#[test]
fn passwords_are_told_from_other_variables() {
    for name in ["VAULT_PASSWORD", "VAULT_NEW_PASSWORD", "VAULT_PASSWORD_COMMAND", "vault_password"] {
        assert!(is_secret(name), "{name}");
    }
    for name in ["VAULT_PASSWORD_FILE", "VAULT_REPO", "PATH", "PGPASSWORD"] {
        assert!(!is_secret(name), "{name}");
    }
}

#[test]
fn what_is_started_inherits_no_secret() {
    let machine = Still(&[("VAULT_PASSWORD", "x"), ("VAULT_PASSWORD_FILE", "y"), ("HOME", "/home/me")]);
    let command = machine.program("true");
    let mut taken: Vec<_> = command.get_envs().filter(|(_, value)| value.is_none()).map(|(name, _)| name).collect();
    taken.sort_unstable();
    assert_eq!(taken, [IN_BACKGROUND, "VAULT_PASSWORD"]);
    assert_eq!((machine.is_set("HOME"), machine.is_set("USER")), (true, false));
}
