//! `vault export`.

use std::fs;
use std::fs::File;
use std::io;
use std::io::BufWriter;
use std::io::IsTerminal;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

use crate::engine::archive::export::ExportReport;
use crate::engine::archive::export::export;
use crate::engine::query::browse::BrowseError;
use crate::path::called;
use crate::progress::Progress;
use crate::vault::SnapshotInfo;
use crate::vault::Vault;
use serde::Serialize;

use crate::cli::args::ExportArgs;
use crate::cli::context::Context;
use crate::cli::error::Exit;
use crate::cli::error::Failure;
use crate::cli::error::quoted;
use crate::cli::local;
use crate::cli::output::Output;
use crate::cli::output::Style;
use crate::cli::roots;
use crate::cli::select;
use crate::cli::select::Aim;
use crate::cli::select::Spot;
use crate::cli::units;
use crate::json::Name;
use crate::json::ProblemJson;
use crate::ownfile;

/// The size of the write buffer in bytes.
const BUFFER: usize = 1 << 20;
/// The compression level of archives.
const LEVEL: i32 = 3;
/// The number of problems shown.
const PROBLEMS_SHOWN: usize = 20;

#[derive(Serialize)]
struct ExportJson<'a> {
    snapshot: String,
    tar: Name<'a>,
    files: u64,
    folders: u64,
    bytes: u64,
    /// The length of the archive before compression.
    written: u64,
    problem_count: u64,
    /// The first thousand problems.
    problems: Vec<ProblemJson<'a>>,
}

/// Runs `vault export`.
pub(super) fn run(context: &Context, args: &ExportArgs) -> Result<Exit, Failure> {
    let wanted = select::parse(context, &args.snapshot)?;
    let to_stdout = args.tar == Path::new("-");
    if !to_stdout {
        local::refuse_remote(&args.tar, "an archive")?;
    }
    let compressed = is_compressed(&args.tar)?;
    if !to_stdout {
        local::refuse_in_vault(&args.tar, "an archive")?;
    }
    if to_stdout && io::stdout().is_terminal() {
        return Err(Failure::usage("an archive is no text for a terminal")
            .hint("Send it on: vault export latest --tar - | tar -tf -"));
    }
    if !to_stdout && !args.overwrite && fs::symlink_metadata(&args.tar).is_ok() {
        return Err(Failure::new(format!("{} is there already", args.tar.display()))
            .hint("Choose another name, or replace it with --overwrite."));
    }
    let vault = context.open_to_read()?;
    context.screen.watch_interrupts();
    let snapshots = vault.snapshots();
    let spot = select::spot(context, &vault, &snapshots, &args.filter, &wanted, Aim::Read)?;
    let (info, path) = (&spot.info, spot.path.as_slice());
    let report = if to_stdout {
        let written = write(context, &vault, info, path, BufWriter::with_capacity(BUFFER, io::stdout()));
        match written {
            Err(BrowseError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                let what = "whoever was to read the archive stopped before it was whole";
                return Err(Failure::new(what).hint("What was read of it is no backup."));
            }
            written => written.map_err(|error| spot.failure(error))?.0,
        }
    } else {
        write_file(context, args, &vault, &spot, compressed)?
    };
    context.screen.clear();
    tell(context, args, info, &report, to_stdout)?;
    Ok(match () {
        () if report.problems.iter().any(|problem| problem.damage) => Exit::Damage,
        () if report.problem_count > 0 => Exit::Skipped,
        () => Exit::Done,
    })
}

/// Whether the name asks for compression. Fails if vault does not have that kind of compression.
fn is_compressed(path: &Path) -> Result<bool, Failure> {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    match extension.as_deref() {
        Some("zst" | "tzst") => Ok(true),
        Some(other @ ("gz" | "tgz" | "bz2" | "xz" | "txz")) => {
            let program =
                if other.ends_with("gz") { "gzip" } else { other.trim_start_matches('t').trim_end_matches('2') };
            let program = if program == "bz" { "bzip2" } else { program };
            let file = quoted(&path.display().to_string());
            Err(Failure::usage(format!("vault does not compress with {program}"))
                .hint(format!("Let it do so: vault export SNAPSHOT --tar - | {program} > {file}")))
        }
        _ => Ok(false),
    }
}

/// Writes the archive, and returns the writer.
fn write<W: Write + Send>(
    context: &Context,
    vault: &Vault,
    info: &SnapshotInfo,
    path: &[u8],
    mut out: W,
) -> Result<(ExportReport, W), BrowseError> {
    let report = export(vault, info, path, &mut out, &context.screen)?;
    Ok((report, out))
}

/// Writes a file that only appears when it is complete.
fn write_file(
    context: &Context,
    args: &ExportArgs,
    vault: &Vault,
    spot: &Spot<'_>,
    compressed: bool,
) -> Result<ExportReport, Failure> {
    let mut name = args.tar.as_os_str().to_owned();
    name.push(".part");
    let part = PathBuf::from(name);
    let failed = |error: &io::Error| Failure::caused(format!("cannot write {}", args.tar.display()), error);
    let file = File::create(&part).map_err(|error| failed(&error))?;
    ownfile::hand_over(&part);
    let result = (|| {
        let out = BufWriter::with_capacity(BUFFER, file);
        let wrong = |error: io::Error| failed(&error);
        let told = |error: BrowseError| match error {
            BrowseError::Output(error) => failed(&error),
            error => spot.failure(error),
        };
        let (info, path) = (&spot.info, spot.path.as_slice());
        let (report, out) = if compressed {
            let mut encoder = zstd::stream::write::Encoder::new(out, LEVEL).map_err(wrong)?;
            encoder.include_checksum(true).map_err(wrong)?;
            let (report, encoder) = write(context, vault, info, path, encoder).map_err(told)?;
            (report, encoder.finish().map_err(wrong)?)
        } else {
            write(context, vault, info, path, out).map_err(told)?
        };
        let file = out.into_inner().map_err(|error| failed(error.error()))?;
        file.sync_all().map_err(wrong)?;
        fs::rename(&part, &args.tar).map_err(wrong)?;
        Ok(report)
    })();
    if result.is_err() {
        let _ = fs::remove_file(&part); // the failure before it is the one to report
    }
    result
}

fn tell(
    context: &Context,
    args: &ExportArgs,
    info: &SnapshotInfo,
    report: &ExportReport,
    to_stdout: bool,
) -> Result<(), Failure> {
    if to_stdout {
        // Standard output is occupied by the archive.
        for problem in report.problems.iter().take(PROBLEMS_SHOWN) {
            context.screen.warn(&format!("{}: {}", called(&problem.path), problem.what));
        }
        return Ok(());
    }
    let mut out = Output::new();
    if context.global.json {
        let problems = report.problems.iter();
        let problems = problems.map(|problem| ProblemJson::new(&problem.path, &problem.what, problem.damage));
        out.json(&ExportJson {
            snapshot: info.id.to_string(),
            tar: Name(&roots::bytes_of(args.tar.as_os_str())),
            files: report.files,
            folders: report.folders,
            bytes: report.bytes,
            written: report.written,
            problem_count: report.problem_count,
            problems: problems.collect(),
        })?;
        return out.finish();
    }
    if !context.global.quiet {
        let (files, folders) =
            (units::counted(report.files, "file", "files"), units::counted(report.folders, "folder", "folders"));
        let title = format!("Exported snapshot {} to {}.", info.id.short(), args.tar.display());
        out.styled(Style::Bold, &title)?;
        out.line(format_args!("  {files} in {folders}, {}", units::size(report.bytes)))?;
    }
    if report.problem_count > 0 {
        let title = format!("  not as in the snapshot: {}", units::counted(report.problem_count, "thing", "things"));
        out.styled(Style::Warning, &title)?;
        for problem in report.problems.iter().take(PROBLEMS_SHOWN) {
            out.say(format_args!("    {}: {}", called(&problem.path), problem.what))?;
        }
        let more = report.problem_count.saturating_sub(report.problems.len().min(PROBLEMS_SHOWN) as u64);
        if more > 0 {
            out.say(format_args!("    and {} more (--json lists a thousand)", units::count(more)))?;
        }
    }
    out.finish()
}
