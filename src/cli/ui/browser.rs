//! Opens the page in the browser. The address is passed in a file that only this user can read, because all users of
//! the machine can see command lines.

use std::env;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Stdio;
use std::thread;

use crate::ownfile::replace_private_file;

use crate::cli::machine;

/// The file that leads the browser to the page. It is removed when this value is dropped.
pub struct Signpost(PathBuf);

impl Drop for Signpost {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Opens an address in the browser, if there seems to be one.
pub fn open(address: &str, state: &Path) -> Option<Signpost> {
    let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    let (program, first): (_, &[&str]) = if cfg!(windows) {
        ("rundll32", &["url.dll,FileProtocolHandler"])
    } else if cfg!(target_os = "macos") {
        ("open", &[])
    } else if is_set("DISPLAY") || is_set("WAYLAND_DISPLAY") {
        ("xdg-open", &[])
    } else {
        return None;
    };
    let path = state.join("page.html");
    let page = format!(
        "<!doctype html><meta charset=\"utf-8\"><title>vault</title><meta http-equiv=\"refresh\" content=\"0;url={address}\">\n\
         <a href=\"{address}\">vault</a>\n"
    );
    replace_private_file(&path, page.as_bytes()).ok()?;
    let signpost = Signpost(path);
    let mut command = machine::program(program);
    command.args(first).arg(&signpost.0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut started = command.spawn().ok()?;
    // If no thread can be started, nobody waits for the browser to end.
    let _ = thread::Builder::new().spawn(move || started.wait());
    Some(signpost)
}
