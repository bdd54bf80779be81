//! Changes to key slots on the page, by the rules of `vault key`. Each request must show that the user knows a
//! password, because the access of a browser is not enough.

use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use crate::engine::keys;
use crate::engine::keys::When;
use crate::sync::lock;
use crate::vault::Vault;
use serde_json::Value;
use serde_json::json;
use zeroize::Zeroizing;

use crate::cli::args::Kdf;
use crate::cli::context::Context;
use crate::cli::error::Exit;
use crate::cli::error::Failure;
use crate::cli::key;
use crate::cli::key::AddedJson;
use crate::cli::key::RemovedJson;
use crate::cli::password::Password;

/// The delay after a wrong password, for all requests.
const PENALTY: Duration = Duration::from_secs(1);
/// The maximum length of a password in bytes, as for the command line.
const LEN_MAX: usize = 64 << 10;

/// Held during each request, so that nobody tries many passwords at once.
static TRYING: Mutex<()> = Mutex::new(());

/// The password in a request.
fn password_of(wish: &Value, name: &str) -> Result<Password, Failure> {
    let text = wish.get(name).and_then(Value::as_str).unwrap_or_default();
    if text.is_empty() || text.len() > LEN_MAX || text.contains(['\n', '\r', '\0']) {
        return Err(Failure::usage("a password is missing, or is none"));
    }
    Ok(Password::typed(Zeroizing::new(text.as_bytes().to_vec())))
}

/// Requires a correct password in the request. A wrong one causes a delay.
fn may(vault: &Vault, wish: &Value) -> Result<(), Failure> {
    let shown = password_of(wish, "password")?;
    if keys::opens(vault, &shown.secret())? {
        return Ok(());
    }
    thread::sleep(PENALTY);
    Err(Failure::new("the password is wrong").exit(Exit::WrongPassword).hint("Nothing was done."))
}

/// Adds a password.
pub(super) fn add(context: &Context, vault: &Vault, wish: &Value) -> Result<Value, Failure> {
    let _one = lock(&TRYING);
    let new = password_of(wish, "new")?;
    may(vault, wish)?;
    let label = wish.get("label").and_then(Value::as_str).filter(|label| !label.is_empty()).map(str::to_owned);
    let slot = key::add_password(context, vault, &new, label, Kdf::Standard)?;
    Ok(json!(AddedJson::password(slot)))
}

/// Changes a password. If the page was opened with it, the page uses the new one from now on.
pub(super) fn change(context: &Context, vault: &Vault, wish: &Value, own: &Mutex<Password>) -> Result<Value, Failure> {
    let _one = lock(&TRYING);
    let (old, new) = (password_of(wish, "password")?, password_of(wish, "new")?);
    may(vault, wish)?;
    let changed = key::change_password(context, vault, (&old, &new), Kdf::Standard, When::Known)?;
    let mut own = lock(own);
    if own.is(&old) {
        *own = new;
    }
    Ok(json!(AddedJson::password(changed.slot)))
}

/// Removes a slot.
pub(super) fn remove(context: &Context, vault: &Vault, wish: &Value) -> Result<Value, Failure> {
    let _one = lock(&TRYING);
    may(vault, wish)?;
    let id = wish.get("id").and_then(Value::as_str).unwrap_or_default();
    let (slot, _, removal) = key::remove_slot(context, vault, id, When::Known, &|_| Ok(()))?;
    Ok(json!(RemovedJson::new(slot, &removal)))
}
