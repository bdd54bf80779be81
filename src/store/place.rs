//! The place of a vault: a folder on this machine, or an address on another one.
//!
//! An address holds no secret. Text that looks like an address, but is not one that vault knows, is an error and
//! never a folder.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// The place of a vault.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Place {
    /// A folder on this machine.
    Folder(PathBuf),
    /// An address on another machine.
    Far(Address),
}

impl Place {
    /// The folder, if the place is on this machine.
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Self::Folder(path) => Some(path),
            Self::Far(_) => None,
        }
    }

    /// The address, if the place is on another machine.
    pub const fn address(&self) -> Option<&Address> {
        match self {
            Self::Folder(_) => None,
            Self::Far(address) => Some(address),
        }
    }
}

impl Default for Place {
    fn default() -> Self {
        Self::Folder(PathBuf::new())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => path.display().fmt(f),
            Self::Far(address) => address.fmt(f),
        }
    }
}

/// The address of a store on another machine, in one form for each place.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// A bucket of Amazon S3 or of any server that speaks its protocol: `s3://BUCKET/PREFIX?endpoint=…&region=…`,
    /// `s3+http://HOST:PORT/BUCKET/PREFIX`.
    S3(S3Address),
    /// A container of Azure's blob storage: `azure://ACCOUNT/CONTAINER/PREFIX`.
    Azure {
        /// The storage account.
        account: String,
        /// The container.
        container: String,
        /// The prefix of every object's name; may be empty.
        prefix: String,
        /// The server, if it is not Azure's own.
        endpoint: Option<String>,
    },
    /// A bucket of Google Cloud Storage: `gs://BUCKET/PREFIX`.
    Google {
        /// The bucket.
        bucket: String,
        /// The prefix of every object's name; may be empty.
        prefix: String,
        /// The server, if it is not Google's own.
        endpoint: Option<String>,
    },
    /// A folder reached by SFTP: `sftp://USER@HOST:PORT/PATH`.
    Sftp {
        /// The user, if the address names one.
        user: Option<String>,
        /// The host, or its name in ssh's configuration.
        host: String,
        /// The port, if the address names one.
        port: Option<u16>,
        /// The folder: absolute, or relative to the folder in which the server starts.
        path: String,
    },
    /// A path in rclone's form `REMOTE:PATH`, written `rclone:REMOTE:PATH`.
    Rclone(String),
    /// A server that speaks restic's protocol: `rest+https://USER@HOST/PATH`, or `rest+http://` on this machine.
    Rest(WebAddress),
    /// A folder reached by WebDAV: `webdavs://USER@HOST/PATH`, or `webdav://` on this machine.
    WebDav(WebAddress),
}

/// A bucket reached by the S3 protocol.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct S3Address {
    /// The bucket.
    pub bucket: String,
    /// The prefix of every object's name; may be empty.
    pub prefix: String,
    /// The server, if it is not Amazon's own: `https://HOST`, `http://HOST:PORT`.
    pub endpoint: Option<String>,
    /// The region, if the address names one.
    pub region: Option<String>,
    /// The profile in Amazon's configuration whose credentials are used, if the address names one.
    pub profile: Option<String>,
    /// Whether the bucket is part of the host's name. If `None`, it is with Amazon's own servers, unless its name has
    /// a dot.
    pub virtual_hosted: Option<bool>,
}

/// A folder on a web server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WebAddress {
    /// Whether the connection is encrypted. If not, the server is on this machine.
    pub is_secure: bool,
    /// The user, if there is one.
    pub user: Option<String>,
    /// The host, with its port if the address names one.
    pub host: String,
    /// The path, without `/` at either end; may be empty.
    pub path: String,
}

impl WebAddress {
    /// The URL as a browser takes it, ending with `/`.
    pub fn url(&self) -> String {
        let scheme = if self.is_secure { "https" } else { "http" };
        let slash = if self.path.is_empty() { "" } else { "/" };
        format!("{scheme}://{}/{}{slash}", self.host, self.path)
    }
}

/// The reason why a text is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The address contains a secret, which others could read in process lists and in the shell's history.
    #[error("an address has no secret in it")]
    Secret {
        /// The right way to give the secret.
        way: &'static str,
    },
    /// A part is missing.
    #[error("the address has no {part}: it is written {form}")]
    Lacks {
        /// The missing part.
        part: &'static str,
        /// The form of such an address.
        form: &'static str,
    },
    /// A part is invalid.
    #[error("'{text}' is no {part}: the address is written {form}")]
    Bad {
        /// The invalid part.
        part: &'static str,
        /// The text of that part.
        text: String,
        /// The form of such an address.
        form: &'static str,
    },
    /// A setting after the `?` is unknown.
    #[error("'{name}' is not known in this address: it is written {form}")]
    Unknown {
        /// The setting's name.
        name: String,
        /// The form of such an address.
        form: &'static str,
    },
    /// This version cannot open addresses of this kind.
    #[error("this version cannot open vaults at {form}, on another machine")]
    NotYet {
        /// The form of such an address.
        form: &'static str,
    },
    /// The connection would not be encrypted, so others could read and change the data on its way.
    #[error("without encryption only a server on this machine is spoken to")]
    Open {
        /// The form of the address with encryption.
        instead: &'static str,
    },
}

const S3: &str = "s3://BUCKET/PREFIX?endpoint=https://HOST&region=REGION";
const S3_HTTP: &str = "s3+http://HOST:PORT/BUCKET/PREFIX";
const AZURE: &str = "azure://ACCOUNT/CONTAINER/PREFIX";
const GOOGLE: &str = "gs://BUCKET/PREFIX";
const SFTP: &str = "sftp://USER@HOST:PORT/PATH";
const RCLONE: &str = "rclone:REMOTE:PATH";
const REST: &str = "rest+https://USER@HOST:PORT/PATH";
const WEBDAV: &str = "webdavs://USER@HOST:PORT/PATH";

/// The form of each kind of address that this version can open.
pub const FORMS: &[&str] = &[S3, S3_HTTP, AZURE, GOOGLE, SFTP, REST, RCLONE];

const S3_WAY: &str = "Give it as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or in a profile of ~/.aws/credentials.";
const AZURE_WAY: &str = "Give it as AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN.";
const GOOGLE_WAY: &str = "Give the file of a service account as GOOGLE_APPLICATION_CREDENTIALS.";
const SFTP_WAY: &str = "Keys come from ssh itself: its agent, or ~/.ssh/config.";
const REST_WAY: &str = "Give it as VAULT_REST_PASSWORD.";
const WEBDAV_WAY: &str = "Give it as VAULT_WEBDAV_PASSWORD.";

impl AddressError {
    /// A hint on how to correct the address.
    pub fn hint(&self) -> String {
        match self {
            Self::Secret { way } => (*way).to_owned(),
            Self::Open { instead } => format!("Write it as {instead}."),
            Self::NotYet { .. } => format!("It can open {}; see docs/remote.md", FORMS.join(", ")),
            Self::Lacks { .. } | Self::Bad { .. } | Self::Unknown { .. } => {
                "See what can be written, and with which credentials: docs/remote.md".to_owned()
            }
        }
    }
}

impl Address {
    /// Parses an address; returns `None` if the text does not begin like any address.
    ///
    /// # Errors
    /// If the text begins like an address but is none, or if this version cannot open addresses of its kind.
    pub fn parse(text: &str) -> Option<Result<Self, AddressError>> {
        let form = |address: &Self| match address {
            Self::WebDav(_) => Some(WEBDAV),
            _ => None,
        };
        let opened = |address| match form(&address) {
            None => Ok(address),
            Some(form) => Err(AddressError::NotYet { form }),
        };
        Self::of(text).map(|parsed| parsed.and_then(opened))
    }

    /// Parses an address of any kind.
    fn of(text: &str) -> Option<Result<Self, AddressError>> {
        if let Some(path) = text.strip_prefix("rclone:") {
            return Some(rclone(path));
        }
        let (scheme, rest) = text.split_once("://")?;
        Some(match scheme {
            "s3" => s3(rest),
            "s3+http" => s3_http(rest),
            "azure" => azure(rest),
            "gs" => google(rest),
            "sftp" => sftp(rest),
            "rest+https" => web(rest, true, REST, REST_WAY).map(Self::Rest),
            "rest+http" => web(rest, false, REST, REST_WAY).map(Self::Rest),
            "webdavs" => web(rest, true, WEBDAV, WEBDAV_WAY).map(Self::WebDav),
            "webdav" => web(rest, false, WEBDAV, WEBDAV_WAY).map(Self::WebDav),
            _ => return None,
        })
    }
}

impl Address {
    /// The address at which a place is tested: below this one, where nothing looks for objects of a vault. So objects
    /// that cannot be deleted there are in nobody's way.
    #[must_use]
    pub fn beside(&self) -> Self {
        let below = |path: &str| if path.is_empty() { "doctor".to_owned() } else { format!("{path}/doctor") };
        let mut beside = self.clone();
        match &mut beside {
            Self::S3(S3Address { prefix: path, .. })
            | Self::Azure { prefix: path, .. }
            | Self::Google { prefix: path, .. }
            | Self::Sftp { path, .. }
            | Self::Rest(WebAddress { path, .. })
            | Self::WebDav(WebAddress { path, .. }) => *path = below(path),
            Self::Rclone(path) if path.ends_with(':') || path.ends_with('/') => path.push_str("doctor"),
            Self::Rclone(path) => path.push_str("/doctor"),
        }
        beside
    }
}

impl fmt::Display for Address {
    /// Writes the address in the form that `parse` reads, one form for each place.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let below = |prefix: &str| if prefix.is_empty() { String::new() } else { format!("/{prefix}") };
        let at = |user: &Option<String>| user.as_ref().map_or_else(String::new, |user| format!("{user}@"));
        let mut query: Vec<(&str, &str)> = Vec::new();
        match self {
            Self::S3(s3) => {
                let open = s3.endpoint.as_deref().and_then(|endpoint| endpoint.strip_prefix("http://"));
                match open {
                    Some(host) => write!(f, "s3+http://{host}/{}{}", s3.bucket, below(&s3.prefix))?,
                    None => write!(f, "s3://{}{}", s3.bucket, below(&s3.prefix))?,
                }
                query.extend(s3.endpoint.as_deref().filter(|_| open.is_none()).map(|value| ("endpoint", value)));
                query.extend(s3.region.as_deref().map(|value| ("region", value)));
                query.extend(s3.profile.as_deref().map(|value| ("profile", value)));
                let style = s3.virtual_hosted.map(|is_virtual| if is_virtual { "virtual" } else { "path" });
                query.extend(style.map(|value| ("style", value)));
            }
            Self::Azure { account, container, prefix, endpoint } => {
                write!(f, "azure://{account}/{container}{}", below(prefix))?;
                query.extend(endpoint.as_deref().map(|value| ("endpoint", value)));
            }
            Self::Google { bucket, prefix, endpoint } => {
                write!(f, "gs://{bucket}{}", below(prefix))?;
                query.extend(endpoint.as_deref().map(|value| ("endpoint", value)));
            }
            Self::Sftp { user, host, port, path } => {
                let port = port.map_or_else(String::new, |port| format!(":{port}"));
                let path = path.strip_prefix('/').map_or_else(|| format!("~/{path}"), str::to_owned);
                write!(f, "sftp://{}{host}{port}/{path}", at(user))?;
            }
            Self::Rclone(path) => write!(f, "rclone:{path}")?,
            Self::Rest(web) => {
                let scheme = if web.is_secure { "rest+https" } else { "rest+http" };
                write!(f, "{scheme}://{}{}{}", at(&web.user), web.host, below(&web.path))?;
            }
            Self::WebDav(web) => {
                let scheme = if web.is_secure { "webdavs" } else { "webdav" };
                write!(f, "{scheme}://{}{}{}", at(&web.user), web.host, below(&web.path))?;
            }
        }
        for (number, (name, value)) in query.into_iter().enumerate() {
            let value = value.replace('%', "%25").replace('&', "%26");
            write!(f, "{}{name}={value}", if number == 0 { '?' } else { '&' })?;
        }
        Ok(())
    }
}

/// Splits a text into the part before the `?`, and each `name=value` after it.
fn query(text: &str) -> (&str, Vec<(String, String)>) {
    let Some((before, behind)) = text.split_once('?') else { return (text, Vec::new()) };
    let pairs = behind.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name), decoded(value))
    });
    (before, pairs.collect())
}

/// Decodes percent-encoded characters, such as `%41` for `A`.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        let digit = |at: usize| behind.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        if *first == b'%'
            && let (Some(high), Some(low)) = (digit(0), digit(1))
        {
            bytes.push((high * 16 + low) as u8);
            rest = &behind[2..];
        } else {
            bytes.push(*first);
            rest = behind;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether a setting of this name would hold a secret.
fn is_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    ["secret", "password", "passwd", "token", "sig", "sas", "access_key", "access-key", "accesskey", "credential"]
        .iter()
        .any(|word| name.contains(word))
        || name == "key"
}

fn unknown(name: String, form: &'static str, way: &'static str) -> AddressError {
    if is_secret(&name) { AddressError::Secret { way } } else { AddressError::Unknown { name, form } }
}

/// The prefix of every name in a bucket: components separated by `/`.
fn prefix(text: &str, form: &'static str) -> Result<String, AddressError> {
    let text = text.trim_matches('/');
    let is_part = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(char::is_control);
    if text.is_empty() || text.split('/').all(is_part) {
        return Ok(text.to_owned());
    }
    Err(AddressError::Bad { part: "path", text: text.to_owned(), form })
}

/// Checks the name of a bucket, an account or a host.
fn word(
    text: &str,
    part: &'static str,
    form: &'static str,
    way: &'static str,
    more: &[char],
) -> Result<String, AddressError> {
    if text.contains('@') {
        return Err(AddressError::Secret { way });
    }
    if text.is_empty() {
        return Err(AddressError::Lacks { part, form });
    }
    if text.starts_with(['-', '.']) || !text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(&c)) {
        return Err(AddressError::Bad { part, text: text.to_owned(), form });
    }
    Ok(text.to_owned())
}

/// Splits off a host and its port, if there is one. A host that contains colons is in brackets.
fn host_and_port(text: &str, form: &'static str) -> Result<(String, Option<u16>), AddressError> {
    let bad = || AddressError::Bad { part: "host", text: text.to_owned(), form };
    let (host, port) = if let Some(behind) = text.strip_prefix('[') {
        let (inside, port) = behind.split_once(']').ok_or_else(bad)?;
        inside.parse::<std::net::Ipv6Addr>().map_err(|_| bad())?;
        (format!("[{inside}]"), port.strip_prefix(':'))
    } else {
        let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
        (word(host, "host", form, "", &['-', '.', '_'])?, port)
    };
    let number = |port: &str| port.parse::<u16>().ok().filter(|port| *port > 0);
    match port {
        None => Ok((host, None)),
        Some(port) => Ok((host, Some(number(port).ok_or_else(bad)?))),
    }
}

/// A server: `https://HOST:PORT`.
fn endpoint(text: &str, form: &'static str, way: &'static str) -> Result<String, AddressError> {
    let bad = || AddressError::Bad { part: "endpoint", text: text.to_owned(), form };
    let text = text.trim_end_matches('/');
    let (scheme, host) = text.split_once("://").ok_or_else(bad)?;
    if host.contains('@') {
        return Err(AddressError::Secret { way });
    }
    let (name, port) = host_and_port(host, form).map_err(|_| bad())?;
    match scheme {
        "https" => Ok(text.to_owned()),
        "http" if is_here(&name) => {
            Ok(format!("http://{name}{}", port.map_or(String::new(), |port| format!(":{port}"))))
        }
        "http" if form == S3 => Err(AddressError::Open { instead: S3_HTTP }),
        "http" => Err(AddressError::Open { instead: form }),
        _ => Err(bad()),
    }
}

/// The server of an object store, named by something other than an address: `https://HOST:PORT`, or `http://` on this
/// machine.
///
/// # Errors
/// If the text is not such a server.
#[cfg(feature = "remote")]
pub(crate) fn s3_endpoint(text: &str) -> Result<String, AddressError> {
    endpoint(text, S3, S3_WAY)
}

/// Whether a host is this machine.
fn is_here(host: &str) -> bool {
    let name = host.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn s3(text: &str) -> Result<Address, AddressError> {
    let (before, pairs) = query(text);
    let (bucket, below) = before.split_once('/').unwrap_or((before, ""));
    let mut address = S3Address {
        bucket: word(bucket, "bucket", S3, S3_WAY, &['-', '.', '_'])?,
        prefix: prefix(below, S3)?,
        endpoint: None,
        region: None,
        profile: None,
        virtual_hosted: None,
    };
    s3_settings(&mut address, pairs, S3)?;
    Ok(Address::S3(address))
}

fn s3_http(text: &str) -> Result<Address, AddressError> {
    let (before, pairs) = query(text);
    let (server, below) = before.split_once('/').unwrap_or((before, ""));
    if server.contains('@') {
        return Err(AddressError::Secret { way: S3_WAY });
    }
    let (host, port) = host_and_port(server, S3_HTTP)?;
    let (bucket, below) = below.split_once('/').unwrap_or((below, ""));
    let mut address = S3Address {
        bucket: word(bucket, "bucket", S3_HTTP, S3_WAY, &['-', '.', '_'])?,
        prefix: prefix(below, S3_HTTP)?,
        endpoint: Some(format!("http://{host}{}", port.map_or(String::new(), |port| format!(":{port}")))),
        region: None,
        profile: None,
        virtual_hosted: None,
    };
    s3_settings(&mut address, pairs, S3_HTTP)?;
    Ok(Address::S3(address))
}

fn s3_settings(address: &mut S3Address, pairs: Vec<(String, String)>, form: &'static str) -> Result<(), AddressError> {
    for (name, value) in pairs {
        match name.as_str() {
            "endpoint" if form == S3 => address.endpoint = Some(endpoint(&value, S3, S3_WAY)?),
            "region" => address.region = Some(word(&value, "region", form, S3_WAY, &['-', '_', '.'])?),
            "profile" if !value.is_empty() => address.profile = Some(value),
            "style" if value == "path" => address.virtual_hosted = Some(false),
            "style" if value == "virtual" => address.virtual_hosted = Some(true),
            "style" => return Err(AddressError::Bad { part: "style", text: value, form }),
            _ => return Err(unknown(name, form, S3_WAY)),
        }
    }
    Ok(())
}

/// Reads the server, which is the only setting allowed after the `?`.
fn only_endpoint(
    pairs: Vec<(String, String)>,
    form: &'static str,
    way: &'static str,
) -> Result<Option<String>, AddressError> {
    let mut found = None;
    for (name, value) in pairs {
        match name.as_str() {
            "endpoint" => found = Some(endpoint(&value, form, way)?),
            _ => return Err(unknown(name, form, way)),
        }
    }
    Ok(found)
}

fn azure(text: &str) -> Result<Address, AddressError> {
    let (before, pairs) = query(text);
    let (account, below) = before.split_once('/').unwrap_or((before, ""));
    let (container, below) = below.split_once('/').unwrap_or((below, ""));
    Ok(Address::Azure {
        account: word(account, "account", AZURE, AZURE_WAY, &['-'])?,
        container: word(container, "container", AZURE, AZURE_WAY, &['-', '$'])?,
        prefix: prefix(below, AZURE)?,
        endpoint: only_endpoint(pairs, AZURE, AZURE_WAY)?,
    })
}

fn google(text: &str) -> Result<Address, AddressError> {
    let (before, pairs) = query(text);
    let (bucket, below) = before.split_once('/').unwrap_or((before, ""));
    Ok(Address::Google {
        bucket: word(bucket, "bucket", GOOGLE, GOOGLE_WAY, &['-', '.', '_'])?,
        prefix: prefix(below, GOOGLE)?,
        endpoint: only_endpoint(pairs, GOOGLE, GOOGLE_WAY)?,
    })
}

/// Splits off the user before an `@`; a password there is an error.
fn user<'t>(text: &'t str, form: &'static str, way: &'static str) -> Result<(Option<String>, &'t str), AddressError> {
    let Some((user, host)) = text.rsplit_once('@') else { return Ok((None, text)) };
    if user.contains(':') {
        return Err(AddressError::Secret { way });
    }
    if user.is_empty() {
        return Err(AddressError::Lacks { part: "user before the @", form });
    }
    if user.starts_with('-') || user.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return Err(AddressError::Bad { part: "user", text: user.to_owned(), form });
    }
    Ok((Some(user.to_owned()), host))
}

fn sftp(text: &str) -> Result<Address, AddressError> {
    let (server, below) = text.split_once('/').unwrap_or((text, ""));
    let (user, host) = user(server, SFTP, SFTP_WAY)?;
    let (host, port) = host_and_port(host, SFTP)?;
    let below = below.trim_end_matches('/');
    let bad = || AddressError::Bad { part: "path", text: below.to_owned(), form: SFTP };
    if below.contains(char::is_control) || below.split('/').any(|part| part == "..") {
        return Err(bad());
    }
    let (below, is_absolute) = match below.strip_prefix('~') {
        None => (below.trim_start_matches('/'), true),
        Some("") => ("", false),
        Some(rest) => (rest.strip_prefix('/').ok_or_else(bad)?, false),
    };
    if below.is_empty() {
        return Err(AddressError::Lacks { part: "path", form: SFTP });
    }
    let path = if is_absolute { format!("/{below}") } else { below.to_owned() };
    Ok(Address::Sftp { user, host, port, path })
}

fn rclone(text: &str) -> Result<Address, AddressError> {
    let bad = || AddressError::Bad { part: "path of rclone", text: text.to_owned(), form: RCLONE };
    let Some((remote, path)) = text.split_once(':') else {
        return Err(AddressError::Lacks { part: "colon behind the remote's name", form: RCLONE });
    };
    if remote.is_empty() {
        return Err(AddressError::Lacks { part: "name of a remote", form: RCLONE });
    }
    // The name of a remote in rclone's configuration. Options may follow it after commas, and one of them may be a
    // secret.
    let is_named = |c: char| c.is_alphanumeric() || "_-. +@".contains(c);
    if remote.contains([',', '=']) || path.starts_with("//") {
        return Err(AddressError::Secret { way: "Make a remote with: rclone config" });
    }
    if remote.starts_with('-') || !remote.chars().all(is_named) || path.contains(char::is_control) {
        return Err(bad());
    }
    Ok(Address::Rclone(format!("{remote}:{}", path.trim_end_matches('/'))))
}

fn web(text: &str, is_secure: bool, form: &'static str, way: &'static str) -> Result<WebAddress, AddressError> {
    let (before, mut pairs) = query(text);
    if let Some((name, _)) = pairs.pop() {
        return Err(unknown(name, form, way));
    }
    let (server, below) = before.split_once('/').unwrap_or((before, ""));
    let (user, host) = user(server, form, way)?;
    let (name, port) = host_and_port(host, form)?;
    if !is_secure && !is_here(&name) {
        return Err(AddressError::Open { instead: form });
    }
    let host = format!("{name}{}", port.map_or(String::new(), |port| format!(":{port}")));
    Ok(WebAddress { is_secure, user, host, path: prefix(below, form)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Address {
        Address::of(text).unwrap_or_else(|| panic!("{text}")).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn addresses_have_one_form() {
        for text in [
            "s3://bucket",
            "s3://bucket/a/b",
            "s3://bucket/a?endpoint=https://s3.example.org&region=eu-1",
            "s3://bucket/a?endpoint=https://s3.example.org:9000&style=virtual",
            "s3://bucket?region=eu-west-1&profile=backup",
            "s3+http://127.0.0.1:8333/bucket/laptop",
            "s3+http://nas:8333/bucket",
            "s3+http://[::1]:8333/bucket",
            "azure://account/container/prefix",
            "azure://account/container?endpoint=http://127.0.0.1:10000",
            "gs://bucket/prefix",
            "sftp://nas/srv/vault",
            "sftp://me@nas.example.org:2222/srv/my vault",
            "sftp://me@nas/~/vault",
            "rclone:drive:backup/vault",
            "rclone:drive:",
            "rest+https://host/path",
            "rest+https://me@host:8000",
            "rest+http://127.0.0.1:8000/a/b",
            "webdavs://me@cloud.example.org/remote.php/dav/files/me/vault",
            "webdav://localhost:8080/dav",
        ] {
            let address = parsed(text);
            assert_eq!(address.to_string(), text);
            assert_eq!(parsed(&address.to_string()), address);
        }
        for (text, expected) in [
            ("s3://bucket/", "s3://bucket"),
            ("s3://bucket//a/", "s3://bucket/a"),
            ("s3://bucket/a?endpoint=https%3A%2F%2Fs3.example.org%2F", "s3://bucket/a?endpoint=https://s3.example.org"),
            ("s3://bucket?endpoint=http://127.0.0.1:8333", "s3+http://127.0.0.1:8333/bucket"),
            ("sftp://nas//srv/vault/", "sftp://nas/srv/vault"),
            ("rest+https://host/path/", "rest+https://host/path"),
            ("rclone:drive:backup/", "rclone:drive:backup"),
        ] {
            assert_eq!(parsed(text).to_string(), expected);
        }
        assert_eq!(parsed("webdavs://me@h/a").to_string(), "webdavs://me@h/a");
        let Address::WebDav(web) = parsed("webdavs://me@h:1/a/b") else { panic!("no WebDAV") };
        assert_eq!(web.url(), "https://h:1/a/b/");
    }

    #[test]
    fn what_is_no_address_says_why() {
        for (text, expected) in [
            ("s3://", "has no bucket"),
            ("s3://key:secret@bucket", "no secret"),
            ("s3://bucket?secret_access_key=x", "no secret"),
            ("s3://bucket?endpoint=https://key:secret@host", "no secret"),
            ("s3://bucket?endpoint=http://nas:9000", "without encryption"),
            ("s3://bucket?endpoint=nas", "is no endpoint"),
            ("s3://bucket?regoin=x", "'regoin' is not known"),
            ("s3://bucket?style=x", "is no style"),
            ("s3://bu cket", "is no bucket"),
            ("s3://bucket/a/../b", "is no path"),
            ("s3+http://host:0/bucket", "is no host"),
            ("s3+http://host:8333", "has no bucket"),
            ("azure://account", "has no container"),
            ("azure://account/container?sig=abc", "no secret"),
            ("gs://", "has no bucket"),
            ("sftp://me:secret@nas/x", "no secret"),
            ("sftp://nas", "has no path"),
            ("sftp://nas/~other/x", "is no path"),
            ("sftp://-oProxyCommand=x/y", "is no host"),
            ("sftp://-x@nas/y", "is no user"),
            ("sftp://nas:port/y", "is no host"),
            ("rclone:drive", "has no colon"),
            ("rclone::x", "has no name"),
            ("rclone:-v:x", "is no path of rclone"),
            ("rclone:s3,secret_access_key=x:bucket", "no secret"),
            ("rest+https://me:secret@host/", "no secret"),
            ("rest+http://host/", "without encryption"),
            ("rest+http://127.example.org/", "without encryption"),
            ("webdav://host/dav", "without encryption"),
            ("webdavs://host/dav?token=x", "no secret"),
        ] {
            let error = Address::parse(text).unwrap().expect_err(text);
            assert!(error.to_string().contains(expected), "{text}: {error}");
            assert!(!error.hint().is_empty());
        }
        for text in ["", "folder", "/s3://x", "./s3://x", "http://host", "ssh://host/x", "s3:bucket", "C:\\vault"] {
            assert_eq!(Address::parse(text), None, "{text}");
        }
    }
}
