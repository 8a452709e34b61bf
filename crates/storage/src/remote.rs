//! Clients of remote stores, built from the environment, the URL and the program's options.
//!
//! Later sources win: what `object_store` reads from the environment (`AWS_*`, `GOOGLE_*`,
//! `AZURE_*`), the URL's query, then the options. Clients do not repeat requests themselves: above
//! them lie [`Explained`], [`Retrying`] and the prefix.

use std::str::FromStr;
use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsCredential};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::prefix::PrefixStore;
use object_store::{ClientConfigKey, ObjectStore, RetryConfig, StaticCredentialProvider};
use tidelog_core::Env;
use url::{Host, Url};

use crate::error::Error;
use crate::explained::Explained;
use crate::location::{Bucket, Provider};
use crate::options::{Secrets, StorageOptions, is_secret};
use crate::retrying::{RetryPolicy, Retrying};

/// Connects to a bucket. No request is made.
pub(crate) fn connect(
    bucket: &Bucket,
    options: &StorageOptions,
    env: &Env,
) -> Result<Arc<dyn ObjectStore>, Error> {
    let mut merged = bucket.options.clone();
    for (name, value) in options.iter() {
        merged.set(name, value);
    }
    let setup = Setup { bucket, options: merged };
    let (client, secrets) = match bucket.provider {
        Provider::S3 => setup.s3()?,
        Provider::Gcs => setup.gcs()?,
        Provider::Azure => setup.azure()?,
    };
    let explained = Explained::new(client, bucket.provider, &bucket.name, secrets);
    let randomness = Arc::clone(&env.randomness);
    let retrying = Retrying::new(Arc::new(explained), RetryPolicy::default(), randomness);
    if bucket.prefix.as_ref().is_empty() {
        return Ok(Arc::new(retrying));
    }
    Ok(Arc::new(PrefixStore::new(retrying, bucket.prefix.clone())))
}

type Client = (Arc<dyn ObjectStore>, Secrets);

struct Setup<'a> {
    bucket: &'a Bucket,
    /// Of URL and program, without the environment's.
    options: StorageOptions,
}

impl Setup<'_> {
    fn s3(&self) -> Result<Client, Error> {
        let mut builder = AmazonS3Builder::from_env();
        for (name, value) in self.options.iter() {
            builder = match self.s3_key(name)? {
                None => builder.with_virtual_hosted_style_request(!self.flag(name, value)?),
                Some(key) => builder.with_config(key, value),
            };
        }
        let get = |key: &AmazonS3ConfigKey| builder.get_config_value(key);
        let endpoint =
            get(&AmazonS3ConfigKey::S3Endpoint).or_else(|| get(&AmazonS3ConfigKey::Endpoint));
        let http = get(&AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp));
        let http = self.allows_http(endpoint.as_deref(), http.as_deref())?;
        let secrets =
            self.secrets(AmazonS3ConfigKey::from_str, |key| builder.get_config_value(key));
        if let Some(credential) = self.s3_credential() {
            builder = builder.with_credentials(Arc::new(StaticCredentialProvider::new(credential)));
        }
        let built = builder
            .with_bucket_name(&self.bucket.name)
            .with_allow_http(http)
            .with_retry(no_retry())
            .build();
        Ok((Arc::new(built.map_err(|error| self.refused(&secrets, &error))?), secrets))
    }

    /// The key of an S3 option; `None` for `path_style`, which is ours.
    fn s3_key(&self, name: &str) -> Result<Option<AmazonS3ConfigKey>, Error> {
        match name {
            "path_style" => Ok(None),
            _ => match self.key(name)? {
                // The environment may name an endpoint by its more specific key, which would win.
                AmazonS3ConfigKey::Endpoint => Ok(Some(AmazonS3ConfigKey::S3Endpoint)),
                AmazonS3ConfigKey::Bucket => Err(self.no_bucket_option(name)),
                key => Ok(Some(key)),
            },
        }
    }

    /// Credentials that are given in full: then none of the environment's are mixed in.
    fn s3_credential(&self) -> Option<AwsCredential> {
        let get = |names: [&str; 2]| names.iter().find_map(|name| self.options.get(name));
        let token = get(["aws_session_token", "session_token"])
            .or_else(|| get(["aws_token", "token"]))
            .map(str::to_owned);
        Some(AwsCredential {
            key_id: get(["aws_access_key_id", "access_key_id"])?.to_owned(),
            secret_key: get(["aws_secret_access_key", "secret_access_key"])?.to_owned(),
            token,
        })
    }

    fn gcs(&self) -> Result<Client, Error> {
        let account = |(name, _): (&str, &str)| name.contains("service_account");
        // Two accounts would contradict each other: the program's stands alone.
        let mut builder = if self.options.iter().any(account) {
            GoogleCloudStorageBuilder::new()
        } else {
            GoogleCloudStorageBuilder::from_env()
        };
        for (name, value) in self.options.iter() {
            let key = match name {
                "endpoint" => GoogleConfigKey::BaseUrl,
                _ => self.key(name)?,
            };
            if key == GoogleConfigKey::Bucket {
                return Err(self.no_bucket_option(name));
            }
            builder = builder.with_config(key, value);
        }
        let get = |key: &GoogleConfigKey| builder.get_config_value(key);
        let account = get(&GoogleConfigKey::ServiceAccountKey).or_else(|| {
            let file = get(&GoogleConfigKey::ServiceAccount)?;
            std::fs::read_to_string(file).ok()
        });
        let mut secrets = self.secrets(GoogleConfigKey::from_str, get);
        let account = account.as_deref().and_then(|text| Account::parse(text, &mut secrets));
        let endpoint =
            get(&GoogleConfigKey::BaseUrl).or(account.and_then(|account| account.base_url));
        // The builder's own default allows http everywhere, so only what was asked for counts.
        let asked =
            self.options.get("allow_http").or_else(|| self.options.get("google_allow_http"));
        let http = self.allows_http(endpoint.as_deref(), asked)?;
        let allow = GoogleConfigKey::Client(ClientConfigKey::AllowHttp);
        let built = builder
            .with_bucket_name(&self.bucket.name)
            .with_config(allow, http.to_string())
            .with_retry(no_retry())
            .build();
        Ok((Arc::new(built.map_err(|error| self.refused(&secrets, &error))?), secrets))
    }

    fn azure(&self) -> Result<Client, Error> {
        let mut builder = MicrosoftAzureBuilder::from_env();
        for (name, value) in self.options.iter() {
            let key = match name {
                "account" => AzureConfigKey::AccountName,
                _ => self.key(name)?,
            };
            if key == AzureConfigKey::ContainerName {
                return Err(self.no_bucket_option(name));
            }
            builder = builder.with_config(key, value);
        }
        let get = |key: &AzureConfigKey| builder.get_config_value(key);
        let emulator = get(&AzureConfigKey::UseEmulator).is_some_and(|on| on == "true");
        if get(&AzureConfigKey::AccountName).is_none() && !emulator {
            return Err(self.refuse(
                "no storage account is named; set AZURE_STORAGE_ACCOUNT_NAME, or add \
                 ?account=NAME to the URL",
            ));
        }
        let http = get(&AzureConfigKey::Client(ClientConfigKey::AllowHttp));
        let endpoint = get(&AzureConfigKey::Endpoint);
        let http = self.allows_http(endpoint.as_deref(), http.as_deref())?;
        let secrets = self.secrets(AzureConfigKey::from_str, get);
        let built = builder
            .with_container_name(&self.bucket.name)
            .with_allow_http(http)
            .with_retry(no_retry())
            .build();
        Ok((Arc::new(built.map_err(|error| self.refused(&secrets, &error))?), secrets))
    }

    fn key<K: FromStr>(&self, name: &str) -> Result<K, Error> {
        name.parse().map_err(|_| Error::Option {
            name: name.to_owned(),
            reason: format!(
                "is not known for {}:// stores; docs/object-stores.md lists what is",
                self.bucket.provider.scheme()
            ),
        })
    }

    fn flag(&self, name: &str, value: &str) -> Result<bool, Error> {
        value.parse().map_err(|_| Error::Option {
            name: name.to_owned(),
            reason: "must be true or false".to_owned(),
        })
    }

    fn no_bucket_option(&self, name: &str) -> Error {
        Error::Option {
            name: name.to_owned(),
            reason: "is named by the URL alone; leave the option out".to_owned(),
        }
    }

    /// Whether the client may speak http: to this machine always, elsewhere where it is asked for.
    fn allows_http(&self, endpoint: Option<&str>, asked: Option<&str>) -> Result<bool, Error> {
        let asked = asked.is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let Some(endpoint) = endpoint else { return Ok(asked) };
        let url = Url::parse(endpoint)
            .map_err(|_| self.refuse("its endpoint is not a URL such as http://127.0.0.1:9000"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(
                self.refuse("its endpoint holds credentials; put them into the environment")
            );
        }
        match url.scheme() {
            "http" if asked || is_this_machine(&url) => Ok(true),
            "http" => Err(self.refuse(
                "its endpoint speaks http, which everybody on the way can read and change; use \
                 https, or set allow_http=true",
            )),
            "https" => Ok(asked),
            _ => Err(self.refuse("its endpoint must begin with https:// or http://")),
        }
    }

    /// All values of options and environment that no message may repeat.
    fn secrets<K>(
        &self,
        parse: impl Fn(&str) -> Result<K, object_store::Error>,
        get: impl Fn(&K) -> Option<String>,
    ) -> Secrets {
        const NAMES: [&str; 12] = [
            "secret_access_key",
            "aws_session_token",
            "sse_customer_key_base64",
            "google_service_account_key",
            "azure_storage_account_key",
            "azure_storage_client_secret",
            "azure_storage_sas_key",
            "azure_storage_token",
            "fabric_session_token",
            "proxy_url",
            "access_key",
            "client_secret",
        ];
        let mut secrets = Secrets::default();
        for value in NAMES.iter().filter_map(|name| get(&parse(name).ok()?)) {
            secrets.add(value);
        }
        // The id of an access key is a name, which errors may tell.
        let door = |name: &str| is_secret(name) && !name.ends_with("access_key_id");
        for (_, value) in self.options.iter().filter(|(name, _)| door(name)) {
            secrets.add(value);
        }
        secrets
    }

    fn refuse(&self, reason: &str) -> Error {
        Error::Location { location: self.bucket.to_string(), reason: reason.to_owned() }
    }

    fn refused(&self, secrets: &Secrets, error: &object_store::Error) -> Error {
        self.refuse(&secrets.hide(&error.to_string()))
    }
}

/// What of a service account's file matters here.
struct Account {
    base_url: Option<String>,
}

impl Account {
    fn parse(text: &str, secrets: &mut Secrets) -> Option<Self> {
        let account: serde_json::Value = serde_json::from_str(text).ok()?;
        let field = |name: &str| account.get(name)?.as_str().map(str::to_owned);
        for name in ["private_key", "refresh_token", "client_secret"] {
            secrets.add(field(name).unwrap_or_default());
        }
        Some(Self { base_url: field("gcs_base_url") })
    }
}

/// The layers above decide what is repeated.
fn no_retry() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

fn is_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use tidelog_core::ErrorKind;

    use super::*;
    use crate::Location;

    const CANARY: &str = "canary-7f3a";

    fn open(url: &str, options: &[(&str, &str)]) -> Result<Arc<dyn ObjectStore>, Error> {
        let options =
            options.iter().fold(StorageOptions::new(), |all, (name, value)| all.with(name, *value));
        let files: Arc<dyn crate::FileSystem> = Arc::new(crate::OsFileSystem);
        url.parse::<Location>()?.open(&options, &Env::default(), &files)
    }

    #[test]
    fn clients_of_all_providers_are_built_and_show_no_secret() {
        let account = format!(
            "{{\"private_key\": \"{CANARY}\", \"private_key_id\": \"\", \"client_email\": \"\", \
             \"disable_oauth\": true, \"gcs_base_url\": \"http://127.0.0.1:9\"}}"
        );
        for (url, options) in [
            (
                "s3://b/p?endpoint=http://127.0.0.1:9&path_style=true&region=eu",
                [("aws_access_key_id", "id"), ("aws_secret_access_key", CANARY)],
            ),
            ("gs://b/p", [("google_service_account_key", account.as_str()), ("timeout", "5s")]),
            (
                "az://b/p?account=me&endpoint=http://127.0.0.1:9/me",
                // The canary in base64, as account keys are.
                [("azure_storage_account_key", "Y2FuYXJ5LTdmM2E="), ("timeout", "5s")],
            ),
        ] {
            let store = open(url, &options).unwrap();
            let shown = format!("{store} {store:?}");
            assert!(!shown.contains(CANARY) && !shown.contains("Y2FuYXJ5"), "{shown}");
            // As a vector of bytes would be shown.
            assert!(!shown.contains("99, 97, 110"), "{shown}");
        }
    }

    #[test]
    fn wrong_options_are_refused_by_name_without_their_values() {
        for (url, name, value) in [
            ("s3://b", "aws_secret", CANARY),
            ("s3://b", "bucket", CANARY),
            ("s3://b", "path_style", CANARY),
            ("gs://b", "region", CANARY),
            ("gs://b", "google_service_account_key", CANARY),
            ("az://b?account=me", "container_name", CANARY),
            ("az://b?account=me", "azure_storage_account_key", CANARY),
            ("az://b?account=me", "sas_key", CANARY),
            ("az://b", "token", CANARY),
        ] {
            let error = open(url, &[(name, value)]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(!format!("{error} {error:?}").contains(CANARY), "{error:?}");
        }
    }

    #[test]
    fn http_is_for_this_machine_or_on_demand() {
        let key = [("access_key_id", "id"), ("secret_access_key", CANARY)];
        for host in ["127.0.0.1:9", "127.9.9.9", "localhost:80", "[::1]:9"] {
            open(&format!("s3://b?endpoint=http://{host}"), &key).unwrap();
        }
        for host in ["10.0.0.1", "example.com", "localhost.example.com", "127.0.0.1.nip.io"] {
            let url = format!("s3://b?endpoint=http://{host}");
            let error = open(&url, &key).unwrap_err().to_string();
            assert!(error.contains("allow_http=true"), "{error}");
            open(&format!("{url}&allow_http=true"), &key).unwrap();
            open(&format!("s3://b?endpoint=https://{host}"), &key).unwrap();
        }
        for endpoint in ["ftp://127.0.0.1", "127.0.0.1:9", "http://u:canary-7f3a@127.0.0.1"] {
            let error = open("s3://b", &[("endpoint", endpoint)]).unwrap_err();
            assert!(!error.to_string().contains(CANARY), "{error}");
        }
    }
}
