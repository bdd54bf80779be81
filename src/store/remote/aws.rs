//! Credentials for S3, found as Amazon's own tools find them: variables, profiles, a command, a cluster's token, the
//! machine's role.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::CredentialProvider;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsCredential};

use crate::ownfile;
use crate::store::place::{S3Address, s3_endpoint};
use crate::store::remote::line::Surroundings;
use crate::store::remote::settings::Settings;

/// The time for which a command's credentials are used, if they expire; then the command is run again. Credentials of
/// any service last much longer.
const FRESH: Duration = Duration::from_secs(5 * 60);
/// If it fails then, it is run again after this time. Until it succeeds, its earlier credentials are used.
const AGAIN: Duration = Duration::from_secs(30);
/// A system file, and the text in it by which a machine of Amazon's is recognized.
const MAKER: (&str, &str) = ("/sys/devices/virtual/dmi/id/sys_vendor", "Amazon EC2");

/// A section of one of Amazon's configuration files.
type Profile = HashMap<String, String>;

/// The profile of this name, merged from both files.
fn profile(settings: &Settings, name: &str) -> Profile {
    let file = |variable: &str, usual: &str| {
        let given = settings.get(variable).map(PathBuf::from);
        given.or_else(|| settings.home.as_ref().map(|home| home.join(".aws").join(usual)))
    };
    let text = |path: PathBuf| ownfile::text_of(ownfile::read_given(&path, ownfile::LEN_MAX).ok()?).ok();
    let read = |path: Option<PathBuf>| path.and_then(text).unwrap_or_default();
    let mut found = section(&read(file("AWS_CONFIG_FILE", "config")), |title| {
        title == name && name == "default" || title.strip_prefix("profile ").is_some_and(|title| title.trim() == name)
    });
    found.extend(section(&read(file("AWS_SHARED_CREDENTIALS_FILE", "credentials")), |title| title == name));
    found
}

/// The settings in the sections with these titles.
fn section(text: &str, is_wanted: impl Fn(&str) -> bool) -> Profile {
    let mut found = Profile::new();
    let mut is_in = false;
    for line in text.lines() {
        let bare = line.trim();
        if let Some(title) = bare.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            is_in = is_wanted(title.trim());
        } else if is_in
            && !line.starts_with([' ', '\t', '#', ';'])
            && let Some((key, value)) = bare.split_once('=')
        {
            found.insert(key.trim().to_lowercase(), value.trim().to_owned());
        }
    }
    found
}

/// Splits a command into words as Amazon's tools do: at spaces, but not within quotes.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in text.chars() {
        match (quote, c) {
            (Some(open), _) if open == c => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, _) if c.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// The server: named by the address, the environment or the profile; `None` for Amazon's own.
///
/// # Errors
/// If the environment or the profile names something that is not a server, or one without encryption.
pub(super) fn endpoint(address: &S3Address, settings: &Settings) -> Result<Option<String>, String> {
    if address.endpoint.is_some() {
        return Ok(address.endpoint.clone());
    }
    let name = profile_name(address, settings);
    let said =
        ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"].into_iter().find_map(|name| Some((name, settings.get(name)?)));
    let in_profile = || Some(("endpoint_url of the profile", profile(settings, &name).remove("endpoint_url")?));
    // A profile named in the address goes before variables, which may belong to another account.
    let said = if address.profile.is_some() { in_profile().or(said) } else { said.or_else(in_profile) };
    let Some((source, text)) = said else { return Ok(None) };
    match s3_endpoint(&text) {
        Ok(endpoint) => Ok(Some(endpoint)),
        Err(error) => Err(format!("{source} is {text}: {error}")),
    }
}

/// Whether a server is Amazon's own.
pub(super) fn is_amazon(endpoint: Option<&str>) -> bool {
    let Some(endpoint) = endpoint else { return true };
    let server = endpoint.split_once("://").map_or(endpoint, |(_, server)| server);
    let host = server.split(['/', ':']).next().unwrap_or_default().to_lowercase();
    ["amazonaws.com", "amazonaws.com.cn"]
        .iter()
        .any(|end| host.strip_suffix(end).is_some_and(|before| before.is_empty() || before.ends_with('.')))
}

/// Whether this machine is one of Amazon's, which give credentials to programs that run on them. A request on any
/// other machine would be slow and in vain. Where the system does not show it, `AWS_EC2_METADATA_DISABLED=false` says
/// so.
fn has_machine_role(settings: &Settings) -> bool {
    match settings.get("AWS_EC2_METADATA_DISABLED").map(|value| value.to_lowercase()) {
        Some(value) => value == "false",
        None => ownfile::read_text(Path::new(MAKER.0)).is_ok_and(|maker| maker.trim() == MAKER.1),
    }
}

/// The name of the profile to use.
fn profile_name(address: &S3Address, settings: &Settings) -> String {
    address.profile.clone().or_else(|| settings.get("AWS_PROFILE")).unwrap_or_else(|| "default".to_owned())
}

/// Gives the builder its region and its credentials.
///
/// # Errors
/// If there are none; the message says what to do.
pub(super) fn configure(
    mut builder: AmazonS3Builder,
    address: &S3Address,
    settings: &Settings,
    surroundings: &Arc<dyn Surroundings>,
) -> Result<AmazonS3Builder, String> {
    let name = profile_name(address, settings);
    let profile = profile(settings, &name);
    let is_named = address.profile.is_some();
    if is_named && profile.is_empty() {
        return Err(format!("there is no profile '{name}' in ~/.aws/config or ~/.aws/credentials"));
    }
    let region = [address.region.clone(), settings.get("AWS_REGION"), settings.get("AWS_DEFAULT_REGION")];
    if let Some(region) = region.into_iter().flatten().next().or_else(|| profile.get("region").cloned()) {
        builder = builder.with_region(region);
    }
    // A profile named in the address goes before variables, which may belong to another account.
    if !is_named {
        if let (Some(id), Some(secret)) = (settings.get("AWS_ACCESS_KEY_ID"), settings.get("AWS_SECRET_ACCESS_KEY")) {
            builder = builder.with_access_key_id(id).with_secret_access_key(secret);
            return Ok(settings.get("AWS_SESSION_TOKEN").into_iter().fold(builder, AmazonS3Builder::with_token));
        }
        if let (Some(file), Some(role)) = (settings.get("AWS_WEB_IDENTITY_TOKEN_FILE"), settings.get("AWS_ROLE_ARN")) {
            return Ok(web_identity(builder, file, role, settings.get("AWS_ROLE_SESSION_NAME")));
        }
    }
    let value = |key: &str| profile.get(key).cloned();
    if let (Some(id), Some(secret)) = (value("aws_access_key_id"), value("aws_secret_access_key")) {
        builder = builder.with_access_key_id(id).with_secret_access_key(secret);
        return Ok(value("aws_session_token").into_iter().fold(builder, AmazonS3Builder::with_token));
    }
    if let Some(command) = value("credential_process") {
        let words = words(&command);
        if words.is_empty() {
            return Err(format!("the credential_process of the profile '{name}' is empty"));
        }
        let source = Process { words, surroundings: surroundings.clone(), last: tokio::sync::Mutex::default() };
        return Ok(builder.with_credentials(Arc::new(source)));
    }
    if let (Some(file), Some(role)) = (value("web_identity_token_file"), value("role_arn")) {
        return Ok(web_identity(builder, file, role, value("role_session_name")));
    }
    if profile.keys().any(|key| key.starts_with("sso_") || matches!(key.as_str(), "role_arn" | "source_profile")) {
        return Err(format!(
            "the profile '{name}' signs in by a way that only Amazon's own tool knows; add a profile with the line \
             credential_process = aws configure export-credentials --profile {name} --format process"
        ));
    }
    if let Some(uri) = settings.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") {
        return Ok(builder.with_config(AmazonS3ConfigKey::ContainerCredentialsRelativeUri, uri));
    }
    if let (Some(uri), Some(file)) =
        (settings.get("AWS_CONTAINER_CREDENTIALS_FULL_URI"), settings.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"))
    {
        builder = builder.with_config(AmazonS3ConfigKey::ContainerCredentialsFullUri, uri);
        return Ok(builder.with_config(AmazonS3ConfigKey::ContainerAuthorizationTokenFile, file));
    }
    // The machine itself may have a role, but only on Amazon's own machines.
    if is_amazon(endpoint(address, settings)?.as_deref()) && has_machine_role(settings) {
        return Ok(builder);
    }
    Err("there are no credentials for it: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile of \
         ~/.aws/credentials with ?profile=NAME"
        .to_owned())
}

fn web_identity(builder: AmazonS3Builder, file: String, role: String, session: Option<String>) -> AmazonS3Builder {
    let builder = builder
        .with_config(AmazonS3ConfigKey::WebIdentityTokenFile, file)
        .with_config(AmazonS3ConfigKey::RoleArn, role);
    let session = session.unwrap_or_else(|| "vault".to_owned());
    builder.with_config(AmazonS3ConfigKey::RoleSessionName, session)
}

/// Credentials printed by a command.
struct Process {
    words: Vec<String>,
    surroundings: Arc<dyn Surroundings>,
    /// The last credentials. The lock is held while the command runs: however many requests need credentials, it runs
    /// once.
    last: tokio::sync::Mutex<Option<Given>>,
}

/// Credentials that a command has printed.
struct Given {
    credential: Arc<AwsCredential>,
    /// The time at which the command is run again; `None` if the credentials do not expire.
    until: Option<Duration>,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Process").finish_non_exhaustive()
    }
}

/// The output of a command.
#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Printed {
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
    expiration: Option<String>,
}

#[async_trait::async_trait]
impl CredentialProvider for Process {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut last = self.last.lock().await;
        let now = self.surroundings.now();
        if let Some(given) = &*last
            && given.until.is_none_or(|until| now < until)
        {
            return Ok(given.credential.clone());
        }
        match (self.ask(now).await, &mut *last) {
            (Ok(given), last) => Ok(last.insert(given).credential.clone()),
            // The earlier credentials may still be valid. If not, the store says so.
            (Err(_), Some(given)) => {
                given.until = Some(now.saturating_add(AGAIN));
                Ok(given.credential.clone())
            }
            (Err(error), None) => Err(error),
        }
    }
}

impl Process {
    /// Runs the command.
    async fn ask(&self, now: Duration) -> object_store::Result<Given> {
        let failed = |what: String| object_store::Error::Generic {
            store: "S3",
            source: format!("credential_process {}: {what}", self.words[0]).into(),
        };
        let mut command = tokio::process::Command::new(&self.words[0]);
        command.args(&self.words[1..]).stdin(std::process::Stdio::null()).kill_on_drop(true);
        let output = command.output().await.map_err(|error| failed(error.to_string()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(failed(format!("{}: {said}", output.status)));
        }
        let printed: Printed = serde_json::from_slice(&output.stdout)
            .map_err(|_| failed("what it prints are no credentials as Amazon's tools take them".to_owned()))?;
        let credential = Arc::new(AwsCredential {
            key_id: printed.access_key_id,
            secret_key: printed.secret_access_key,
            token: printed.session_token,
        });
        let until = printed.expiration.map(|_| now.saturating_add(FRESH));
        Ok(Given { credential, until })
    }
}

/// The certificates that Amazon's tools trust, in addition to the system's.
pub(super) fn ca_file(settings: &Settings) -> Option<PathBuf> {
    settings.ca_file.clone().or_else(|| settings.get("AWS_CA_BUNDLE").map(PathBuf::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_read_as_they_are_written() {
        let text = "[default]\naws_access_key_id = A\n# aws_access_key_id = B\n[profile x]\nregion=eu\ns3 =\n  region = nested\n";
        assert_eq!(section(text, |title| title == "default")["aws_access_key_id"], "A");
        let x = section(text, |title| title == "profile x");
        assert_eq!((x["region"].as_str(), x.len()), ("eu", 2));
        assert!(section(text, |title| title == "x").is_empty());
    }

    fn settings(variables: &[(&str, &str)]) -> Settings {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Settings { variables: variables.collect(), ..Settings::default() }
    }

    #[test]
    fn the_server_is_known_by_its_host() {
        for own in ["https://s3.eu-central-1.amazonaws.com", "https://s3.cn-north-1.amazonaws.com.cn:443/"] {
            assert!(is_amazon(Some(own)), "{own}");
        }
        for other in ["https://amazonaws.com.example.org", "https://notamazonaws.com", "http://127.0.0.1:8333"] {
            assert!(!is_amazon(Some(other)), "{other}");
        }
        assert!(is_amazon(None));
        let address = |endpoint: Option<&str>| S3Address {
            bucket: "b".to_owned(),
            prefix: String::new(),
            endpoint: endpoint.map(str::to_owned),
            region: None,
            profile: None,
            virtual_hosted: None,
        };
        let all = settings(&[("AWS_ENDPOINT_URL_S3", "https://one.example.org/"), ("AWS_ENDPOINT_URL", "https://two")]);
        assert_eq!(endpoint(&address(Some("https://said")), &all).unwrap().as_deref(), Some("https://said"));
        assert_eq!(endpoint(&address(None), &all).unwrap().as_deref(), Some("https://one.example.org"));
        let one = settings(&[("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")]);
        assert_eq!(endpoint(&address(None), &one).unwrap().as_deref(), Some("http://127.0.0.1:9000"));
        assert_eq!(endpoint(&address(None), &settings(&[])), Ok(None));
        for (bad, expected) in [("http://nas:9000", "without encryption"), ("nas", "is no endpoint")] {
            let error = endpoint(&address(None), &settings(&[("AWS_ENDPOINT_URL", bad)])).unwrap_err();
            assert!(error.contains(expected) && error.contains("AWS_ENDPOINT_URL"), "{error}");
        }
    }

    #[test]
    fn only_a_machine_of_amazons_is_asked_for_credentials() {
        for (value, expected) in [("true", false), ("False", true), ("TRUE", false)] {
            assert_eq!(has_machine_role(&settings(&[("AWS_EC2_METADATA_DISABLED", value)])), expected, "{value}");
        }
    }

    #[test]
    fn commands_are_cut_into_words() {
        assert_eq!(words("a  b"), ["a", "b"]);
        assert_eq!(words("'/my tool' --x=\"y z\" ''"), ["/my tool", "--x=y z", ""]);
        assert_eq!(words(" "), [""; 0]);
    }
}
