//! Passwords: which are taken, and their hashing with Argon2id off the threads that serve.
//!
//! A hash takes tens of milliseconds and 19 MiB, so that few are at work at once, few more wait, and the next
//! is told to come back. It must not know users, sessions or HTTP.

use std::sync::Arc;

use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use shared::model::UserName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Length of a password, in Unicode scalar values.
pub const PASSWORD_CHARS_MIN: usize = 8;
pub const PASSWORD_CHARS_MAX: usize = 1_024;

/// What OWASP recommends for Argon2id: memory in KiB, passes, lanes.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// Hashes at work at once, in the whole process, and those that wait for their turn.
const AT_WORK_MAX: usize = 2;
const WAITING_MAX: usize = 32;
/// A hash that no password has, for names that nobody has: so much work as for any other.
const NOBODYS: &str = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$\
                       AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// The passwords of eight characters and more that people guess first.
const BEST_KNOWN: [&str; 60] = [
    "12345678",
    "123456789",
    "1234567890",
    "12345678910",
    "123123123",
    "11111111",
    "111111111",
    "00000000",
    "87654321",
    "987654321",
    "9876543210",
    "88888888",
    "99999999",
    "12341234",
    "11223344",
    "1q2w3e4r",
    "1q2w3e4r5t",
    "1qaz2wsx",
    "1qaz2wsx3edc",
    "q1w2e3r4",
    "qwertyui",
    "qwertyuiop",
    "qwerty12",
    "qwerty123",
    "qwerty1234",
    "qwer1234",
    "asdfghjk",
    "asdfghjkl",
    "asdf1234",
    "zxcvbnm1",
    "abcd1234",
    "abc12345",
    "a1b2c3d4",
    "a1234567",
    "a12345678",
    "aa123456",
    "aa12345678",
    "password",
    "password1",
    "password12",
    "password123",
    "password1234",
    "passw0rd",
    "p@ssw0rd",
    "p@ssword",
    "iloveyou",
    "iloveyou1",
    "princess",
    "sunshine",
    "football",
    "baseball",
    "superman",
    "trustno1",
    "starwars",
    "whatever",
    "computer",
    "welcome1",
    "letmein1",
    "changeme",
    "administrator",
];

/// Why a password is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPassword {
    #[error("A password needs at least {PASSWORD_CHARS_MIN} characters.")]
    TooShort,
    #[error("A password has at most {PASSWORD_CHARS_MAX} characters.")]
    TooLong,
    #[error("That password is one of those that are guessed first.")]
    WellKnown,
    #[error("A password cannot be the name.")]
    Name,
}

/// Whether somebody of this name may have a password.
///
/// # Errors
/// Why not.
pub fn check(password: &str, name: &UserName) -> Result<(), BadPassword> {
    let folded = |text: &str| text.split_whitespace().collect::<String>().to_lowercase();
    // No character has more than four bytes: what cannot fit is not looked at.
    if password.len() > PASSWORD_CHARS_MAX * 4 {
        return Err(BadPassword::TooLong);
    }
    match password.chars().count() {
        0..PASSWORD_CHARS_MIN => Err(BadPassword::TooShort),
        PASSWORD_CHARS_MIN..=PASSWORD_CHARS_MAX => {
            let password = folded(password);
            let mut chars = password.chars();
            let first = chars.next();
            if BEST_KNOWN.contains(&password.as_str()) || chars.all(|c| Some(c) == first) {
                Err(BadPassword::WellKnown)
            } else if password == folded(name.as_str()) {
                Err(BadPassword::Name)
            } else {
                Ok(())
            }
        }
        _ => Err(BadPassword::TooLong),
    }
}

/// There are too many passwords to be hashed, or the system gave no random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many passwords at once")]
pub struct Busy;

/// Hashes passwords, a few at once; one for the whole process.
#[derive(Debug)]
pub struct Hasher {
    at_work: Arc<Semaphore>,
    accepted: Arc<Semaphore>,
}

impl Default for Hasher {
    fn default() -> Self {
        Self {
            at_work: Arc::new(Semaphore::new(AT_WORK_MAX)),
            accepted: Arc::new(Semaphore::new(AT_WORK_MAX + WAITING_MAX)),
        }
    }
}

impl Hasher {
    /// The hash of a password in PHC form.
    ///
    /// # Errors
    /// `Busy`.
    pub async fn hash(&self, password: String) -> Result<String, Busy> {
        let mut salt = [0; 16];
        getrandom::fill(&mut salt).map_err(|_| Busy)?;
        let hashed = self.run(move || {
            let hashed = argon2()?.hash_password_with_salt(password.as_bytes(), &salt);
            hashed.ok().map(|hash| hash.to_string())
        });
        hashed.await?.ok_or(Busy)
    }

    /// Whether a password has a hash in PHC form. Without one nothing fits, after the same work.
    ///
    /// # Errors
    /// `Busy`.
    pub async fn verify(&self, password: String, hash: Option<String>) -> Result<bool, Busy> {
        let hash = hash.unwrap_or_else(|| NOBODYS.to_owned());
        let fits = move || argon2()?.verify_password(password.as_bytes(), hash.as_str()).ok();
        Ok(self.run(fits).await?.is_some())
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Busy> {
        let accepted = self.accepted.clone().try_acquire_owned().map_err(|_| Busy)?;
        let turn = self.at_work.clone().acquire_owned().await.map_err(|_| Busy)?;
        // The work goes on if nobody waits for it any more, and so do its permits.
        let held: [OwnedSemaphorePermit; 2] = [accepted, turn];
        let worked = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(held);
            done
        });
        worked.await.map_err(|_| Busy)
    }
}

fn argon2() -> Option<Argon2<'static>> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).ok()?;
    Some(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_long_and_not_the_first_that_one_would_guess() {
        let name = UserName::parse("Ada Lovelace").unwrap();
        for (password, verdict) in [
            ("correct horse", Ok(())),
            ("Zażółć g", Ok(())),
            (&"x1".repeat(512), Ok(())),
            ("seven77", Err(BadPassword::TooShort)),
            ("", Err(BadPassword::TooShort)),
            (&"x1".repeat(513), Err(BadPassword::TooLong)),
            (&"\u{1f600}".repeat(9_000), Err(BadPassword::TooLong)),
            ("PassWord", Err(BadPassword::WellKnown)),
            ("ööööööööö", Err(BadPassword::WellKnown)),
            ("        ", Err(BadPassword::WellKnown)),
            ("adalovelace", Err(BadPassword::Name)),
            ("ADA LOVELACE", Err(BadPassword::Name)),
        ] {
            assert_eq!(check(password, &name), verdict, "{password:?}");
        }
    }

    #[test]
    fn the_list_holds_what_could_be_taken() {
        for password in BEST_KNOWN {
            assert!(
                password.len() >= PASSWORD_CHARS_MIN && password == password.to_lowercase(),
                "{password}"
            );
        }
    }

    #[tokio::test]
    async fn a_password_has_its_own_hash_and_no_other() {
        let hasher = Hasher::default();
        let hash = hasher.hash("correct horse".into()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        // The same work for nobody: the same parameters, and as long a salt and hash.
        assert_eq!(
            hash.rsplit_once('$').map(|(head, _)| head.len()),
            NOBODYS.rsplit_once('$').map(|(head, _)| head.len())
        );
        assert_eq!((hash.len(), &hash[..30]), (NOBODYS.len(), &NOBODYS[..30]));
        assert_eq!(hasher.verify("correct horse".into(), Some(hash.clone())).await, Ok(true));
        assert_eq!(hasher.verify("correct horsf".into(), Some(hash.clone())).await, Ok(false));
        assert_eq!(hasher.verify("correct horse".into(), None).await, Ok(false));
        assert_ne!(hasher.hash("correct horse".into()).await.unwrap(), hash, "salted");
        argon2().unwrap().verify_password(b"", NOBODYS).unwrap_err();
        argon2::PasswordHash::new(NOBODYS).unwrap();
    }

    #[tokio::test]
    async fn few_are_at_work_and_few_wait() {
        let hasher = Hasher::default();
        let taken = hasher.accepted.clone().acquire_many_owned((AT_WORK_MAX + WAITING_MAX) as u32).await;
        assert_eq!(hasher.verify("correct horse".into(), None).await, Err(Busy));
        drop(taken);
        assert_eq!(hasher.verify("correct horse".into(), None).await, Ok(false));
        assert_eq!((hasher.at_work.available_permits(), hasher.accepted.available_permits()), (2, 34));
    }
}
