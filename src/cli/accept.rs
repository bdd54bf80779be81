//! `vault accept`: lists known findings, and accepts losses.

use crate::vault::findings::About;
use crate::vault::findings::KnownFinding;
use crate::vault::findings::exit_of;
use jiff::tz::TimeZone;

use crate::cli::args::AcceptArgs;
use crate::cli::consent::Consent;
use crate::cli::context::Context;
use crate::cli::dates;
use crate::cli::error::Exit;
use crate::cli::error::Failure;
use crate::cli::offer;
use crate::cli::output::Output;
use crate::cli::output::Style;
use crate::cli::units;
use crate::json::FindingJson;

/// The consequences of a finding in words; empty if none are known.
fn cost(finding: &KnownFinding) -> String {
    match (finding.snapshots, finding.files) {
        (0, 0) => String::new(),
        // The finding itself names what is lost.
        _ if matches!(finding.about, About::Files { .. } | About::Unexamined { .. }) => String::new(),
        (snapshots, 0) => format!("; it costs {}", units::counted(snapshots, "snapshot", "snapshots")),
        (snapshots, files) => format!(
            "; it costs {} in {}",
            units::counted(files, "file", "files"),
            units::counted(snapshots, "snapshot", "snapshots")
        ),
    }
}

/// One line about a finding.
pub(super) fn line(finding: &KnownFinding, zone: &TimeZone) -> String {
    let since = dates::shown(finding.since, zone);
    format!("[{}] {}{} (known since {since})", finding.id, finding.text(), cost(finding))
}

/// Lists findings, each with the command that ends it.
pub(super) fn tell(findings: &[KnownFinding], zone: &TimeZone, out: &mut Output) -> Result<(), Failure> {
    for finding in findings {
        out.styled(Style::Warning, &line(finding, zone))?;
        out.say(format_args!("  ends with: {}", finding.ends()))?;
    }
    Ok(())
}

/// Runs `vault accept`.
pub(super) fn run(context: &Context, args: &AcceptArgs) -> Result<Exit, Failure> {
    let (vault, _) = context.open()?;
    let known = vault.known_findings(dates::now())?;
    offer::note_findings(&vault, &known);
    let mut out = Output::new();
    if args.findings.is_empty() {
        if context.global.json {
            let findings: Vec<FindingJson> = known.iter().map(FindingJson::new).collect();
            out.json(&serde_json::json!({ "findings": findings }))?;
        } else if known.is_empty() {
            out.say("Nothing is known to be wrong with this vault.")?;
        } else {
            tell(&known, &context.zone, &mut out)?;
        }
        out.finish()?;
        return Ok(exit_of(&known));
    }
    let mut chosen = Vec::new();
    for id in &args.findings {
        let finding = known.iter().find(|finding| finding.id.to_string() == *id).ok_or_else(|| {
            Failure::usage(format!("nothing is known under the name {id}")).hint("See what there is with: vault accept")
        })?;
        if !finding.can_be_accepted() {
            return Err(Failure::new(format!("finding {id} cannot be accepted: {}", finding.text()))
                .hint(format!("It ends with: {}.", finding.ends())));
        }
        chosen.push(finding);
    }
    if !context.global.json {
        for finding in &chosen {
            out.styled(Style::Warning, &line(finding, &context.zone))?;
        }
    }
    if !args.yes {
        let hint = "Give --yes to accept it. vault accept alone lists what there is.";
        let consent = Consent::new(context, false, "the loss is accepted", hint)?;
        out.say("Accepting means: what these findings name is given up as lost, and is not spoken of any more.")?;
        out.flush()?;
        consent.ask(context, "Accept the loss?")?;
    }
    for finding in &chosen {
        vault.accept(finding, dates::now(), &context.screen)?;
    }
    vault.refresh(&context.screen)?;
    let left = vault.known_findings(dates::now())?;
    offer::note_findings(&vault, &left);
    context.screen.clear();
    if context.global.json {
        let accepted: Vec<String> = chosen.iter().map(|finding| finding.id.to_string()).collect();
        let findings: Vec<FindingJson> = left.iter().map(FindingJson::new).collect();
        out.json(&serde_json::json!({ "accepted": accepted, "findings": findings }))?;
    } else if !context.global.quiet {
        out.line(format_args!("Accepted: {}.", units::counted(chosen.len() as u64, "finding", "findings")))?;
        tell(&left, &context.zone, &mut out)?;
    }
    out.finish()?;
    Ok(exit_of(&left))
}
