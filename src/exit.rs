//! Every exit code of the program, in one table that scripts can rely on.

/// Exit code of a command. If several apply, the worst one counts: see [`Exit::worse`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Exit {
    /// Done, and everything that is known of the vault is sound. Foreign files do not matter.
    Done = 0,
    /// Failed.
    Failed = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// Done, but something was skipped, has not arrived yet, was written by a later version, or asks for attention: two
    /// vaults in one place, a source that vanished, a copy of a key slot that is gone.
    Skipped = 3,
    /// Data is lost or damaged, or a record that was seen is missing.
    Damage = 4,
    /// The place of the vault cannot be reached, or there is no vault.
    Unreachable = 10,
    /// The password is wrong.
    WrongPassword = 12,
    /// A defect of the program.
    Panic = 101,
    /// Stopped by the user.
    Interrupted = 130,
}

impl Exit {
    /// Every exit code, with its meaning in a few words, as the manual pages list them.
    pub const ALL: [(Self, &'static str); 9] = [
        (Self::Done, "done; all that is known of the vault is sound"),
        (Self::Failed, "failed"),
        (Self::Usage, "the command line or the configuration is wrong"),
        (Self::Skipped, "done, but something was skipped, has not arrived yet, is newer, or asks for attention"),
        (Self::Damage, "data is lost or damaged, or a record that was seen is missing"),
        (Self::Unreachable, "the place cannot be reached, or no vault is there"),
        (Self::WrongPassword, "the password is wrong"),
        (Self::Panic, "a defect of the program; it says what to report"),
        (Self::Interrupted, "stopped by the user"),
    ];

    /// The worse of two results of work that was done: damage is worse than something skipped.
    #[must_use]
    pub fn worse(self, other: Self) -> Self {
        let rank = |exit| match exit {
            Self::Done => 0,
            Self::Skipped => 1,
            Self::Damage => 3,
            Self::Interrupted => 4,
            Self::Panic => 5,
            Self::Failed | Self::Usage | Self::Unreachable | Self::WrongPassword => 2,
        };
        if rank(other) > rank(self) { other } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_worse_than_what_was_skipped() {
        assert_eq!(Exit::Done.worse(Exit::Skipped), Exit::Skipped);
        assert_eq!(Exit::Damage.worse(Exit::Skipped), Exit::Damage);
        assert_eq!(Exit::Skipped.worse(Exit::Damage), Exit::Damage);
        assert_eq!(Exit::Failed.worse(Exit::Damage), Exit::Damage);
        assert!(Exit::ALL.windows(2).all(|pair| (pair[0].0 as u8) < pair[1].0 as u8));
    }
}
