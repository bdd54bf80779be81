//! `vault completions` and `vault man`: from the same definitions as `--help`.

use std::fs;
use std::path::Path;

use clap::CommandFactory;
use serde::Serialize;

use crate::cli::args::Cli;
use crate::cli::args::CompletionsArgs;
use crate::cli::args::ManArgs;
use crate::cli::context::Context;
use crate::cli::error::Exit;
use crate::cli::error::Failure;
use crate::cli::json::Name;
use crate::cli::output::Output;
use crate::cli::roots;
use crate::cli::units;

/// Runs `vault completions`.
pub fn completions(args: &CompletionsArgs) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "vault", &mut script);
    let mut out = Output::new();
    out.bytes(&script)?;
    out.finish().map(|()| Exit::Done)
}

#[derive(Serialize)]
struct ManJson<'a> {
    folder: Name<'a>,
    pages: u64,
}

/// Runs `vault man`.
pub fn man(context: &Context, args: &ManArgs) -> Result<Exit, Failure> {
    let mut out = Output::new();
    let Some(folder) = &args.folder else {
        let mut page = Vec::new();
        let rendered = clap_mangen::Man::new(Cli::command()).render(&mut page);
        rendered.map_err(|error| Failure::caused("cannot make the page", &error))?;
        out.bytes(&page)?;
        return out.finish().map(|()| Exit::Done);
    };
    let pages = pages_in(folder)
        .map_err(|error| Failure::caused(format!("cannot write the pages to {}", folder.display()), &error))?;
    if context.global.json {
        out.json(&ManJson { folder: Name(&roots::bytes_of(folder.as_os_str())), pages })?;
    } else if !context.global.quiet {
        let many = units::counted(pages, "page", "pages");
        out.line(format_args!(
            "Wrote {many} to {}. Read one with: man -l {}",
            folder.display(),
            folder.join("vault.1").display()
        ))?;
    }
    out.finish().map(|()| Exit::Done)
}

/// Writes all pages; returns how many there are then.
fn pages_in(folder: &Path) -> std::io::Result<u64> {
    fs::create_dir_all(folder)?;
    clap_mangen::generate_to(Cli::command(), folder)?;
    let mut pages = 0;
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        pages += u64::from(name.starts_with("vault") && name.ends_with(".1"));
    }
    Ok(pages)
}
