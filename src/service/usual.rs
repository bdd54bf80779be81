//! Files that are usually excluded from a backup: caches, trash, and files that a system makes again by itself.

/// The patterns of `--exclude-usual`. They apply in any folder and on every system, because folders move between
/// systems. They come before all other patterns, so that `!PATTERN` can take one back. None of them matches files that
/// people make.
pub const USUAL: &[&str] = &[
    // Linux and other Unix
    ".cache/",
    ".thumbnails/",
    "**/.local/share/Trash/",
    ".Trash-*/",
    "lost+found/",
    ".gvfs/",
    ".dbus/",
    ".xsession-errors*",
    "**/.local/share/baloo/",
    "**/.local/share/gvfs-metadata/",
    "**/.var/app/*/cache/",
    ".nfs????????????????*",
    // macOS
    ".DS_Store",
    ".Trash/",
    ".Trashes/",
    ".fseventsd/",
    ".Spotlight-V100/",
    ".TemporaryItems/",
    ".DocumentRevisions-V100/",
    "**/Library/Caches/",
    // Windows
    "$RECYCLE.BIN/",
    "System Volume Information/",
    "**/AppData/Local/Temp/",
    "**/AppData/Local/CrashDumps/",
    "**/AppData/Local/Microsoft/Windows/INetCache/",
    "pagefile.sys",
    "hiberfil.sys",
    "swapfile.sys",
    "Thumbs.db",
    // Browsers and applications built on them
    "Code Cache/",
    "GPUCache/",
    "ShaderCache/",
    "**/Service Worker/CacheStorage/",
    "**/.mozilla/firefox/*/cache2/",
    // Files that compilers and package managers fetch or make again
    "**/.cargo/registry/",
    "**/.npm/_cacache/",
    "**/.gradle/caches/",
    "__pycache__/",
    // Files that programs hold while they work
    ".~lock.*#",
    "*.crdownload",
];

/// Puts these patterns before the others, if they are wanted. Later patterns take precedence.
pub fn before(is_wanted: bool, others: Vec<String>) -> Vec<String> {
    if !is_wanted {
        return others;
    }
    USUAL.iter().map(|pattern| (*pattern).to_owned()).chain(others).collect()
}

#[cfg(test)]
mod tests {
    use crate::engine::patterns::exclude::check;

    use super::*;

    #[test]
    fn the_documents_list_them_all() {
        let text = include_str!("../../docs/backup.md");
        let (_, text) = text.split_once("### What is usually not wanted").unwrap();
        let (text, _) = text.split_once("A person makes none of these.").unwrap();
        let listed: Vec<&str> = text.split('`').skip(1).step_by(2).filter(|word| USUAL.contains(word)).collect();
        assert_eq!(listed, USUAL);
    }

    #[test]
    fn they_are_valid_and_others_count_for_more() {
        USUAL.iter().for_each(|pattern| check(pattern).unwrap());
        let all = before(true, vec!["!.cache/".to_owned()]);
        assert_eq!((all.len(), all.last().map(String::as_str)), (USUAL.len() + 1, Some("!.cache/")));
        assert_eq!(before(false, vec!["a".to_owned()]), ["a"]);
    }
}
