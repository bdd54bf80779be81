//! The text that a new configuration begins with.

use std::fmt::Write;
use std::path::Path;

/// The values to fill in. Where there is none, the text has an example in a comment.
#[derive(Debug, Clone, Default)]
pub struct Filled<'a> {
    /// The name and folder of the vault.
    pub vault: Option<(&'a str, &'a Path)>,
    /// Whether the vault is on a removable disk.
    pub removable: bool,
    /// The name and paths of the source.
    pub source: Option<(&'a str, &'a [&'a Path])>,
    /// Whether the source excludes files that are usually excluded.
    pub exclude_usual: bool,
}

const HEAD: &str = "\
# The configuration of vault. A line that begins with # is a remark; take the #
# away to put a setting in force. What was written is checked by
#     vault config check
# and what is due is done by
#     vault run
";

const VAULT_HEAD: &str = "
# Vaults: where snapshots are kept. Each has a name of your own, which can be
# used everywhere: vault list --repo disk
";

const VAULT_EXAMPLE: &str = if cfg!(windows) {
    "# [vaults.disk]\n# path = \"D:/vault\"\n"
} else {
    "# [vaults.disk]\n# path = \"/mnt/disk/vault\"\n"
};

const VAULT_REST: &str = "\
# Where the password comes from (or: vault key add --device, and none is needed)
# password-file = \"~/.config/vault/password\"
# password-command = \"pass show vault\"
# keyring = true                # secret-tool on Linux, security on macOS
# removable = true              # that it is not connected is no failure
# compression = \"default\"       # fast, default, high, max, or 1 to 19
# pack-size = \"32M\"             # 16M to 128M; without it what the vault needs
# verify-others = \"sample\"      # look at packs of others: none, sample, all
# check-every = \"7d\"            # \"never\" leaves it out
# check-sample = \"2%\"           # how much of the data each check reads
# check-max-time = \"10m\"
# drill-every = \"30d\"           # try a restore of some files so often
# retire-after = \"60d\"          # retire machines that wrote nothing for so long
# copy-from = \"first\"           # filled by copies from that vault, named above
";

const VAULT_FAR: &str = "
# A vault on another machine: see docs/remote.md for addresses and credentials.
# [vaults.far]
# path = \"s3://bucket/laptop?endpoint=https://s3.example.org\"
# connections = 8               # requests under way at a time
# timeout = \"1m\"                # how long a request may make no progress
# retry-for = \"15m\"             # then the run fails: the store is not reached
# storage-class = \"STANDARD_IA\" # of packs only; what the store charges for it
# ca-file = \"~/.config/vault/ca.pem\"   # authorities beside the system's
# cache = \"1G\"                  # trees kept on this machine; \"0\" keeps none
# credentials = \"bucket\"        # where its secrets are; see below
# [credentials.bucket]
# file = \"~/.config/vault/bucket\"      # or command, or environment
";

const SOURCE_HEAD: &str = "
# Sources: what is kept together.
";

const SOURCE_EXAMPLE: &str = "\
# [sources.documents]
# paths = [\"~/Documents\", \"~/Pictures\"]
";

const SOURCE_REST: &str = "\
# every = \"1d\"                  # how old the last snapshot may become
# keep = { daily = 7, weekly = 5, monthly = 12 }   # also last, hourly, yearly,
#                               # within = \"30d\", tags = [\"important\"]; without
#                               # it every snapshot stays
# overdue = \"3d\"                # when to be told that it is too old
# vaults = [\"disk\"]             # without it: all of them
# exclude = [\"*.tmp\", \"node_modules/\"]
# exclude-from = [\"~/.config/vault/excludes\"]
# exclude-usual = true          # caches, trash, what a system makes again
# exclude-caches = true
# exclude-if-present = [\".nobackup\"]
# exclude-larger-than = \"4G\"
# exclude-nodump = false
# one-file-system = true
# vaultignore = true            # honour .vaultignore files
# tags = [\"daily\"]
# skip-if-unchanged = false
# before = \"pg_dump shop > ~/Documents/shop.sql\"
# after = \"rm ~/Documents/shop.sql\"              # whatever happened
# on-failure = \"mail -s 'vault failed' me < /dev/null\"
# if-before-fails = \"stop\"      # or \"go-on\"
# hook-timeout = \"1h\"
";

/// Commands for a Unix shell.
const DATABASES: &str = if cfg!(unix) {
    "
# Databases that are in use are not kept by copying their files: before writes a
# dump into a folder that only you can enter, after takes it away. Put in force
# what you have, with the name of your database for shop.
# [sources.postgresql]
# paths = [\"~/dumps/postgresql\"]
# before = '''
# set -e; umask 077; mkdir -p ~/dumps/postgresql
# pg_dump --file=\"$HOME/dumps/postgresql/shop.sql\" shop
# '''
# after = \"rm -f ~/dumps/postgresql/shop.sql\"
# [sources.mysql]
# paths = [\"~/dumps/mysql\"]
# before = '''
# set -e; umask 077; mkdir -p ~/dumps/mysql
# mysqldump --single-transaction --routines --events shop \\
#     > ~/dumps/mysql/shop.sql
# '''
# after = \"rm -f ~/dumps/mysql/shop.sql\"
# [sources.sqlite]
# paths = [\"~/dumps/sqlite\"]
# before = '''
# set -e; umask 077; mkdir -p ~/dumps/sqlite
# sqlite3 -readonly -cmd '.timeout 60000' ~/app/shop.db \\
#     \".backup '$HOME/dumps/sqlite/shop.db'\"
# '''
# after = \"rm -f ~/dumps/sqlite/shop.db\"
"
} else {
    ""
};

const REST: &str = "
[run]
# order = \"small-first\"         # or \"listed\"
# parallel = 2                  # snapshots at once, if they share no disk
# on-battery = false            # a schedule waits for the mains

[notify]
# desktop = \"failure\"           # or \"always\", \"never\"
# ping = \"https://hc-ping.com/your-uuid\"
";

const FIGURES_EXAMPLE: &str = if cfg!(windows) {
    "# prometheus = \"C:/ProgramData/windows_exporter/vault.prom\"\n"
} else {
    "# prometheus = \"/var/lib/node_exporter/textfile/vault.prom\"\n"
};

/// The text of a configuration with these settings. A setting in force does not appear again as a comment.
pub fn text(filled: &Filled<'_>) -> String {
    let vault = filled.vault.map_or("disk", |(name, _)| name);
    let mut text = format!("{HEAD}{}", VAULT_HEAD.replace("disk", vault));
    match filled.vault {
        Some((name, path)) => {
            let _ = write!(text, "[vaults.{}]\npath = {}\n", quoted_key(name), quoted(&path.to_string_lossy()));
        }
        None => text.push_str(VAULT_EXAMPLE),
    }
    let removable: &[&str] = if filled.removable { &["removable"] } else { &[] };
    push_with(&mut text, VAULT_REST, removable);
    text.push_str(VAULT_FAR);
    text.push_str(SOURCE_HEAD);
    let mut in_force = Vec::new();
    match filled.source {
        Some((name, paths)) => {
            let paths: Vec<String> = paths.iter().map(|path| quoted(&path.to_string_lossy())).collect();
            let _ = write!(text, "[sources.{}]\npaths = [{}]\n", quoted_key(name), paths.join(", "));
            in_force.extend(["every", "keep"]);
        }
        None => text.push_str(SOURCE_EXAMPLE),
    }
    if filled.exclude_usual {
        in_force.push("exclude-usual");
    }
    push_with(&mut text, &SOURCE_REST.replace("\"disk\"", &quoted(vault)), &in_force);
    text.push_str(DATABASES);
    text.push_str(REST);
    text.push_str(FIGURES_EXAMPLE);
    text
}

/// Adds commented-out settings, but puts these keys in force.
fn push_with(text: &mut String, settings: &str, in_force: &[&str]) {
    for line in settings.lines() {
        let is_wanted = |key: &&str| line.strip_prefix("# ").is_some_and(|line| line.starts_with(&format!("{key} = ")));
        let line = if in_force.iter().any(is_wanted) { line.trim_start_matches("# ") } else { line };
        text.push_str(line);
        text.push('\n');
    }
}

/// Quotes a text for TOML.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Quotes a key for TOML where needed.
fn quoted_key(key: &str) -> String {
    let bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if bare { key.to_owned() } else { quoted(key) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::config::parse::parse;

    const HOME: &str = if cfg!(windows) { "C:\\Users\\me" } else { "/home/me" };
    const DISK: &str = if cfg!(windows) { "D:\\\"disk\"\\vault" } else { "/mnt/\"disk\"/vault" };

    fn filled() -> Filled<'static> {
        Filled { vault: Some(("my disk", Path::new(DISK))), removable: true, source: None, exclude_usual: true }
    }

    #[test]
    fn the_starter_is_sound_and_fits_eighty_columns() {
        let text = text(&Filled::default());
        let (config, mistakes) = parse(&text, Some(Path::new(HOME)));
        assert!(mistakes.is_empty(), "{mistakes:?}");
        assert!(config.vaults.is_empty() && config.sources.is_empty());
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }

    /// Every comment that looks like a setting is a valid one.
    #[test]
    fn what_the_starter_offers_can_be_put_in_force() {
        // The vault that the starter's vault is a copy of.
        let mut text = format!("[vaults.first]\npath = '{DISK}'\n");
        let mut is_inside = false;
        for line in super::text(&Filled::default()).lines() {
            let setting = line.strip_prefix("# ").filter(|line| {
                let is_setting = line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
                let stays = is_inside || is_setting || line.starts_with('[');
                is_inside ^= line.ends_with("'''");
                stays
            });
            // Only one of the three ways to give a password is allowed.
            let setting = setting.filter(|line| !line.starts_with("password-") && !line.starts_with("keyring"));
            text.push_str(setting.unwrap_or(line));
            text.push('\n');
        }
        let (config, mistakes) = parse(&text, Some(Path::new(HOME)));
        assert!(mistakes.is_empty(), "{mistakes:?}");
        assert!(!is_inside);
        assert_eq!((config.vaults.len(), config.sources.len()), (3, if cfg!(unix) { 4 } else { 1 }));
        assert_eq!(config.vaults[1].copy_from.as_deref(), Some("first"));
        assert_eq!((config.vaults[2].far.connections, config.vaults[2].far.cache), (Some(8), Some(1 << 30)));
        assert_eq!(config.sources[0].paths[0], Path::new(HOME).join("Documents"));
        assert!(config.sources[0].hooks.on_failure.is_some() && !config.run.on_battery);
    }

    #[test]
    fn what_is_filled_in_is_read_back() {
        let paths = ["a b", if cfg!(windows) { "\u{e9}" } else { "\u{e9}\\" }].map(|name| Path::new(HOME).join(name));
        let paths = paths.each_ref().map(std::path::PathBuf::as_path);
        let text = text(&Filled { source: Some(("documents", &paths)), ..filled() });
        let (config, mistakes) = parse(&text, None);
        assert!(mistakes.is_empty(), "{mistakes:?}");
        assert_eq!(config.vaults[0].name, "my disk");
        assert_eq!(config.vaults[0].place.folder(), Some(Path::new(DISK)));
        assert!(config.vaults[0].removable);
        assert_eq!(config.sources[0].paths, paths);
        assert_eq!(config.sources[0].vaults, ["my disk"]);
        assert_eq!(config.sources[0].keep.as_ref().unwrap().keep_daily, Some(7));
        assert!(config.sources[0].exclude.patterns.contains(&".cache/".to_owned()));
        // No setting appears twice, and the comments refer to this vault.
        for key in ["every", "keep", "removable", "exclude-usual"] {
            let lines = text.lines().map(|line| line.trim_start_matches("# "));
            assert_eq!(lines.filter(|line| line.starts_with(&format!("{key} = "))).count(), 1, "{key}");
        }
        assert!(text.contains("# vaults = [\"my disk\"]") && text.contains("--repo my disk"), "{text}");
    }
}
