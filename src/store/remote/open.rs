//! Opening a store by its address.

use std::path::PathBuf;
use std::sync::Arc;

use object_store::aws::AmazonS3Builder;
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};

use crate::store::place::{Address, S3Address};
use crate::store::remote::aws;
use crate::store::remote::call::FarStore;
use crate::store::remote::http::{Transport, authorization};
use crate::store::remote::line::{Line, Surroundings};
use crate::store::remote::object::{Bucket, ObjectClient, once};
use crate::store::remote::rclone::Rclone;
use crate::store::remote::rest::{RestClient, Server};
use crate::store::remote::settings::Settings;
use crate::store::remote::sftp::{Carrier, SftpClient};
use crate::store::{Store, StoreError};

/// The largest number of requests on one line, reads and writes together.
const MOST: usize = 32;

/// Opens the store at an address. Makes no request yet: the first request shows whether the store exists.
///
/// # Errors
/// If there is no credential for the store, or a program that it needs is missing on this machine.
pub fn open(
    address: &Address,
    settings: &Settings,
    surroundings: Arc<dyn Surroundings>,
) -> Result<Arc<dyn Store>, StoreError> {
    let line = line_to(address, settings, &surroundings);
    match address {
        Address::S3(s3) => {
            let client = s3_client(s3, settings, &line, &surroundings)?;
            Ok(Arc::new(FarStore::new(client, line)))
        }
        Address::Azure { account, container, prefix, endpoint } => {
            let client = azure_client((account, container, prefix), endpoint.as_deref(), settings, &line)?;
            Ok(Arc::new(FarStore::new(client, line)))
        }
        Address::Google { bucket, prefix, endpoint } => {
            let client = google_client((bucket, prefix), endpoint.as_deref(), settings, &line)?;
            Ok(Arc::new(FarStore::new(client, line)))
        }
        Address::Sftp { .. } => {
            let client = sftp_client(address, settings, &line, &surroundings)?;
            Ok(Arc::new(FarStore::new(client, line)))
        }
        Address::Rest(web) => {
            let told = |what: String| line.unusable(what);
            let ca_file = settings.ca_file.clone().or_else(|| settings.get("VAULT_REST_CA_FILE").map(PathBuf::from));
            let transport = Transport::new(ca_file.as_deref(), !web.is_secure).map_err(told)?;
            let password = settings.get("VAULT_REST_PASSWORD").unwrap_or_default();
            let authorization = web.user.as_ref().map(|user| authorization(user, &password));
            let client = RestClient::new(line.clone(), transport, Server::At { url: web.url(), authorization })?;
            Ok(Arc::new(FarStore::new(client, line)))
        }
        Address::Rclone(path) => {
            let transport = Transport::new(None, true).map_err(|what| line.unusable(what))?;
            let server = Server::Rclone(Rclone::new(settings.get("VAULT_RCLONE"), path));
            let client = RestClient::new(line.clone(), transport, server)?;
            Ok(Arc::new(FarStore::new(client, line)))
        }
        Address::WebDav(_) => Err(line.unusable("this version cannot open addresses of this kind yet")),
    }
}

/// Creates the folder for a new vault at an address, where the store has folders. Its parent must exist; so must a
/// bucket.
///
/// # Errors
/// As [`open`]; or if the folder cannot be created.
pub fn prepare(address: &Address, settings: &Settings, surroundings: Arc<dyn Surroundings>) -> Result<(), StoreError> {
    let line = line_to(address, settings, &surroundings);
    match address {
        Address::Sftp { .. } => sftp_client(address, settings, &line, &surroundings)?.make_root(),
        _ => Ok(()),
    }
}

fn line_to(address: &Address, settings: &Settings, surroundings: &Arc<dyn Surroundings>) -> Arc<Line> {
    let line = Line::new(address.to_string(), MOST, settings.policy, surroundings.clone());
    Arc::new(match settings.connections {
        Some(connections) => line.with_connections(connections),
        None => line,
    })
}

fn sftp_client(
    address: &Address,
    settings: &Settings,
    line: &Arc<Line>,
    surroundings: &Arc<dyn Surroundings>,
) -> Result<SftpClient, StoreError> {
    let Address::Sftp { user, host, port, path } = address else {
        return Err(line.unusable("it is no address of SFTP"));
    };
    let carrier = Carrier::ssh(settings.get("VAULT_SSH"), user.as_deref(), host, *port);
    SftpClient::new(line.clone(), surroundings.clone(), carrier, path)
}

/// Whether a server is on this machine, so that no proxy is used.
fn is_here(endpoint: Option<&str>) -> bool {
    endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"))
}

/// The innermost cause of an error of the library.
fn told(error: object_store::Error) -> String {
    let mut innermost: &dyn std::error::Error = &error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

fn bucket<S>(store: S) -> Bucket
where
    S: object_store::ObjectStore + object_store::list::PaginatedListStore,
{
    let store = Arc::new(store);
    Bucket { objects: store.clone(), pages: store }
}

fn s3_client(
    address: &S3Address,
    settings: &Settings,
    line: &Arc<Line>,
    surroundings: &Arc<dyn Surroundings>,
) -> Result<ObjectClient, StoreError> {
    let unusable = |what: String| line.unusable(what);
    let given = aws::endpoint(address, settings).map_err(unusable)?;
    let transport = Transport::new(aws::ca_file(settings).as_deref(), is_here(given.as_deref())).map_err(unusable)?;
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&address.bucket)
        .with_retry(once())
        .with_disable_tagging(true)
        .with_http_connector(transport);
    builder = aws::configure(builder, address, settings, surroundings).map_err(unusable)?;
    let is_virtual =
        address.virtual_hosted.unwrap_or_else(|| aws::is_amazon(given.as_deref()) && !address.bucket.contains('.'));
    // The server's own promise that the line is encrypted makes a second digest of each body needless.
    builder = builder.with_virtual_hosted_style_request(is_virtual);
    if let Some(endpoint) = given {
        let is_open = endpoint.starts_with("http://");
        let with_bucket = match endpoint.split_once("://") {
            Some((scheme, host)) if is_virtual => format!("{scheme}://{}.{host}", address.bucket),
            _ => endpoint,
        };
        builder = builder.with_endpoint(with_bucket).with_allow_http(is_open).with_unsigned_payload(!is_open);
    } else {
        builder = builder.with_unsigned_payload(true);
    }
    let make = move |traits: &crate::store::remote::object::Traits| {
        let mut builder = builder.clone().with_disable_bulk_delete(!traits.deletes_batches);
        if let Some(region) = &traits.region {
            builder = builder.with_region(region);
        }
        builder.build().map(bucket).map_err(told)
    };
    let class = settings.storage_class.clone();
    Ok(ObjectClient::new(line.clone(), &address.prefix, true, make)?.with_storage_class(class))
}

fn azure_client(
    (account, container, prefix): (&str, &str, &str),
    endpoint: Option<&str>,
    settings: &Settings,
    line: &Arc<Line>,
) -> Result<ObjectClient, StoreError> {
    let transport =
        Transport::new(settings.ca_file.as_deref(), is_here(endpoint)).map_err(|what| line.unusable(what))?;
    let mut builder = MicrosoftAzureBuilder::new();
    for (name, value) in settings.variables.iter().filter(|(name, _)| name.starts_with("AZURE_")) {
        if let Ok(key) = name.to_lowercase().parse::<AzureConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    builder = builder
        .with_account(account)
        .with_container_name(container)
        .with_retry(once())
        .with_disable_tagging(true)
        .with_http_connector(transport);
    if let Some(endpoint) = endpoint {
        let is_open = endpoint.starts_with("http://");
        // Servers other than Azure's own have the account's name in the path.
        builder = builder.with_endpoint(format!("{endpoint}/{account}")).with_allow_http(is_open);
    }
    let make = move |_: &crate::store::remote::object::Traits| builder.clone().build().map(bucket).map_err(told);
    let class = settings.storage_class.clone();
    Ok(ObjectClient::new(line.clone(), prefix, false, make)?.with_storage_class(class))
}

fn google_client(
    (name, prefix): (&str, &str),
    endpoint: Option<&str>,
    settings: &Settings,
    line: &Arc<Line>,
) -> Result<ObjectClient, StoreError> {
    let transport =
        Transport::new(settings.ca_file.as_deref(), is_here(endpoint)).map_err(|what| line.unusable(what))?;
    let mut builder = GoogleCloudStorageBuilder::new();
    for (variable, value) in settings.variables.iter().filter(|(name, _)| name.starts_with("GOOGLE_")) {
        if let Ok(key) = variable.to_lowercase().parse::<GoogleConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    builder = builder.with_bucket_name(name).with_retry(once()).with_http_connector(transport);
    if let Some(endpoint) = endpoint {
        builder = builder.with_base_url(endpoint);
    }
    let make = move |_: &crate::store::remote::object::Traits| builder.clone().build().map(bucket).map_err(told);
    let class = settings.storage_class.clone();
    Ok(ObjectClient::new(line.clone(), prefix, false, make)?.with_storage_class(class))
}
