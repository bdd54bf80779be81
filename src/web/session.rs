//! Sessions of browsers: a browser exchanges a token, which is valid once, for a cookie.
//!
//! The token is in the part of the address that browsers never send, so no log of requests has it. Only hashes of
//! tokens and cookies are kept, which are also compared in constant time.

use std::sync::Mutex;
use std::time::Duration;

use blake3::Hash;

use crate::json::hex;
use crate::seal::{SealError, random_array};
use crate::sync::lock;

/// The life of an unused token: long enough to bring an address to another machine.
const TOKEN_LIFE: Duration = Duration::from_secs(10 * 60);
/// The time after which an idle browser is forgotten.
const IDLE_MAX: Duration = Duration::from_secs(12 * 3600);
/// The number of browsers that are known; beyond it, the one that was idle for longest is forgotten.
const BROWSERS_MAX: usize = 16;

/// Tokens and cookies of one server.
#[derive(Debug, Default)]
pub struct Sessions {
    /// The valid token, and the time of its creation.
    token: Mutex<Option<(Hash, Duration)>>,
    known: Mutex<Vec<Known>>,
}

#[derive(Debug)]
struct Known {
    cookie: Hash,
    used: Duration,
}

/// 128 random bits as text.
fn secret() -> Result<String, SealError> {
    random_array().map(hex)
}

impl Sessions {
    /// A new token; the previous one becomes invalid. `now` is the time since a fixed moment.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub fn token(&self, now: Duration) -> Result<String, SealError> {
        let token = secret()?;
        *lock(&self.token) = Some((blake3::hash(token.as_bytes()), now));
        Ok(token)
    }

    /// Exchanges the token for a cookie; `None` if the token is invalid.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub fn exchange(&self, token: &str, now: Duration) -> Result<Option<String>, SealError> {
        {
            let mut held = lock(&self.token);
            let is_good = |(hash, since): &(Hash, Duration)| {
                *hash == blake3::hash(token.as_bytes()) && now.saturating_sub(*since) < TOKEN_LIFE
            };
            if !held.as_ref().is_some_and(is_good) {
                return Ok(None);
            }
            *held = None;
        }
        let cookie = secret()?;
        let mut known = lock(&self.known);
        if known.len() >= BROWSERS_MAX {
            let oldest = known.iter().enumerate().min_by_key(|(_, known)| known.used).map_or(0, |(at, _)| at);
            known.swap_remove(oldest);
        }
        known.push(Known { cookie: blake3::hash(cookie.as_bytes()), used: now });
        Ok(Some(cookie))
    }

    /// Whether a cookie is valid: given out, and used not too long ago. Counts as a use.
    pub fn holds(&self, cookie: &str, now: Duration) -> bool {
        let hash = blake3::hash(cookie.as_bytes());
        let mut known = lock(&self.known);
        known.retain(|known| now.saturating_sub(known.used) < IDLE_MAX);
        let mut found = false;
        for known in known.iter_mut().filter(|known| known.cookie == hash) {
            known.used = now;
            found = true;
        }
        found
    }

    /// Forgets a browser.
    pub fn forget(&self, cookie: &str) {
        let hash = blake3::hash(cookie.as_bytes());
        lock(&self.known).retain(|known| known.cookie != hash);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn a_token_is_good_once_and_for_a_while() {
        let sessions = Sessions::default();
        assert_eq!(sessions.exchange("", secs(0)).unwrap(), None, "there is none yet");
        let token = sessions.token(secs(5)).unwrap();
        assert_eq!(token.len(), 32);
        assert_eq!(sessions.exchange(&token[1..], secs(6)).unwrap(), None);
        let cookie = sessions.exchange(&token, secs(6)).unwrap().unwrap();
        assert_ne!(cookie, token);
        assert!(sessions.holds(&cookie, secs(7)) && !sessions.holds(&token, secs(7)));
        assert_eq!(sessions.exchange(&token, secs(8)).unwrap(), None, "the second time");
        let late = sessions.token(secs(100)).unwrap();
        assert_eq!(sessions.exchange(&late, secs(100) + TOKEN_LIFE).unwrap(), None, "too late");
        let (replaced, good) = (sessions.token(secs(1000)).unwrap(), sessions.token(secs(1000)).unwrap());
        assert_eq!(sessions.exchange(&replaced, secs(1000)).unwrap(), None);
        assert!(sessions.exchange(&good, secs(1000)).unwrap().is_some());
    }

    #[test]
    fn browsers_that_are_silent_for_long_are_forgotten() {
        let sessions = Sessions::default();
        let enter = |now| sessions.exchange(&sessions.token(now).unwrap(), now).unwrap().unwrap();
        let cookie = enter(secs(0));
        let nearly = IDLE_MAX.saturating_sub(secs(1));
        assert!(sessions.holds(&cookie, nearly));
        assert!(sessions.holds(&cookie, nearly + nearly), "it was used");
        assert!(!sessions.holds(&cookie, 3 * IDLE_MAX));
        let cookies: Vec<_> = (0..=BROWSERS_MAX as u64).map(|number| enter(secs(number))).collect();
        let held = cookies.iter().filter(|cookie| sessions.holds(cookie, secs(100))).count();
        assert_eq!((held, sessions.holds(&cookies[0], secs(100))), (BROWSERS_MAX, false));
        sessions.forget(&cookies[5]);
        assert!(!sessions.holds(&cookies[5], secs(101)) && sessions.holds(&cookies[6], secs(101)));
    }
}
