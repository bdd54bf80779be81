//! `vault version`.

use serde::Serialize;

use crate::cli::context::Context;
use crate::cli::error::Exit;
use crate::cli::error::Failure;
use crate::cli::output::Output;

/// The version of the object format that this program writes.
const FORMAT: u16 = 1;

#[derive(Serialize)]
struct VersionJson {
    version: &'static str,
    format: u16,
    target: String,
    features: Vec<&'static str>,
}

/// Runs `vault version`.
pub(super) fn run(context: &Context) -> Result<Exit, Failure> {
    let version = VersionJson {
        version: env!("CARGO_PKG_VERSION"),
        format: FORMAT,
        target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        features: features(),
    };
    let mut out = Output::new();
    if context.global.json {
        out.json(&version)?;
    } else {
        out.line(format_args!("vault {}", version.version))?;
        if context.global.verbose > 0 {
            let built = if cfg!(debug_assertions) { "for debugging" } else { "for release" };
            let features = if version.features.is_empty() { "none".to_owned() } else { version.features.join(", ") };
            out.line(format_args!("format:   {}", version.format))?;
            out.line(format_args!("target:   {}, built {built}", version.target))?;
            out.line(format_args!("features: {features}"))?;
        }
    }
    out.finish().map(|()| Exit::Done)
}

/// The optional features of this build.
fn features() -> Vec<&'static str> {
    let mut features = Vec::new();
    if cfg!(chacha20_avx512) {
        features.push("chacha20-avx512");
    }
    if cfg!(target_feature = "crt-static") {
        features.push("static");
    }
    features
}
