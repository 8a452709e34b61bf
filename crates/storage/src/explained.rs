//! A wrapper that says in words why a remote store refused, without secrets.
//!
//! The clients of `object_store` put the server's whole answer and the causes of a broken connection
//! into their errors. Here each becomes a [`RemoteError`]: one line that names the cause and the
//! remedy. It keeps the status, so that callers can tell what may be tried again, and drops the
//! operating system's error below it: for a remote store that says nothing about whether a request
//! took effect, and must not be taken for an error of the local disk.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    UploadPart,
};

use crate::location::Provider;
use crate::options::Secrets;

/// Longer answers of a server are cut.
const DETAIL_CHARS_MAX: usize = 400;

/// Why a remote store refused for good, where its answer tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// There is no such bucket.
    NoBucket,
    /// The credentials are missing, wrong or expired.
    Credentials,
    /// The credentials do not allow that.
    Forbidden,
    /// The bucket lies in another region.
    Region,
    /// The server does not know such a request.
    Unsupported,
}

/// An error of a remote store in words, below an [`object_store::Error`].
#[derive(Debug)]
pub struct RemoteError {
    status: Option<u16>,
    refusal: Option<Refusal>,
    message: String,
}

impl RemoteError {
    /// The HTTP status of the answer; `None` if there was no answer.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.status
    }

    /// Why it refused for good, where that can be told.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }
}

impl fmt::Display for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for RemoteError {}

/// The remote store's words below `error`, if it came from one.
#[must_use]
pub fn remote_error(error: &Error) -> Option<&RemoteError> {
    let mut next: Option<&(dyn StdError + 'static)> = error.source();
    while let Some(current) = next {
        if let Some(found) = current.downcast_ref::<RemoteError>() {
            return Some(found);
        }
        next = current.source();
    }
    None
}

/// What is needed to explain an error.
#[derive(Debug)]
struct Words {
    provider: Provider,
    bucket: String,
    secrets: Secrets,
}

impl Words {
    fn explain(&self, error: Error) -> Error {
        if remote_error(&error).is_some() {
            return error;
        }
        let store = self.store_name();
        let text = match &error {
            // Its own words are only the store's name, which is told again above.
            Error::Generic { source, .. } => chain(source.as_ref()),
            other => chain(other),
        };
        let answer = Answer::parse(&text);
        let refusal = refusal_of(&error, &answer, &text);
        let message = self.secrets.hide(&self.message(refusal, &answer, &text));
        let source = Box::new(RemoteError { status: answer.status, refusal, message });
        match (refusal, error) {
            (Some(Refusal::Credentials), error) => {
                Error::Unauthenticated { path: self.path_of(&error), source }
            }
            (Some(Refusal::Forbidden), error) => {
                Error::PermissionDenied { path: self.path_of(&error), source }
            }
            (Some(Refusal::Unsupported), _) => Error::NotSupported { source },
            (Some(Refusal::NoBucket | Refusal::Region), _) => Error::Generic { store, source },
            (None, Error::NotFound { path, .. }) => Error::NotFound { path, source },
            (None, Error::AlreadyExists { path, .. }) => Error::AlreadyExists { path, source },
            (None, Error::Precondition { path, .. }) => Error::Precondition { path, source },
            (None, Error::NotModified { path, .. }) => Error::NotModified { path, source },
            (None, Error::NotSupported { .. }) => Error::NotSupported { source },
            // These hold no answer of a server.
            (None, error @ (Error::InvalidPath { .. } | Error::NotImplemented { .. })) => error,
            (None, _) => Error::Generic { store, source },
        }
    }

    /// What the error is about: an object, or, as after lists, the bucket.
    fn path_of(&self, error: &Error) -> String {
        match error {
            Error::NotFound { path, .. }
            | Error::AlreadyExists { path, .. }
            | Error::Precondition { path, .. }
            | Error::NotModified { path, .. }
            | Error::PermissionDenied { path, .. }
            | Error::Unauthenticated { path, .. } => path.clone(),
            _ => self.bucket.clone(),
        }
    }

    fn store_name(&self) -> &'static str {
        match self.provider {
            Provider::S3 => "S3",
            Provider::Gcs => "GCS",
            Provider::Azure => "Azure",
        }
    }

    fn message(&self, refusal: Option<Refusal>, answer: &Answer<'_>, text: &str) -> String {
        let (bucket, said) = (&self.bucket, answer.words());
        match refusal {
            Some(Refusal::NoBucket) => format!(
                "there is no bucket {bucket:?}; make it with the store's own tools, or correct \
                 its name"
            ),
            Some(Refusal::Credentials) => format!(
                "the credentials for bucket {bucket:?} are missing or not accepted ({said}); set {}",
                self.credentials()
            ),
            Some(Refusal::Forbidden) => format!(
                "the credentials do not allow that in bucket {bucket:?} ({said}); allow reading \
                 and listing, and for writers putting and deleting, or use others"
            ),
            Some(Refusal::Region) => {
                format!("bucket {bucket:?} lies in another region ({said}); set the option region")
            }
            Some(Refusal::Unsupported) => {
                format!("the server of bucket {bucket:?} cannot do that ({said})")
            }
            None if answer.status.is_some() => said,
            None => one_line(text),
        }
    }

    fn credentials(&self) -> &'static str {
        match self.provider {
            Provider::S3 => "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run where a role is",
            Provider::Gcs => "GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT",
            Provider::Azure => "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
        }
    }
}

/// A server's answer, as far as the client's error repeats it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Answer<'a> {
    status: Option<u16>,
    code: Option<&'a str>,
    message: Option<&'a str>,
    body: &'a str,
}

impl<'a> Answer<'a> {
    /// Finds `status code: 404 Not Found: <Error><Code>…` in a client's error.
    fn parse(text: &'a str) -> Self {
        let Some((_, rest)) = text.split_once("non-2xx status code: ") else {
            return Self::default();
        };
        let status = rest.get(..3).and_then(|digits| digits.parse().ok());
        let body = rest.split_once(": ").map_or("", |(_, body)| body);
        let between = |open: &str, close: &str| {
            let (_, rest) = body.split_once(open)?;
            rest.split_once(close).map(|(inner, _)| inner.trim())
        };
        let code = between("<Code>", "</Code>").or_else(|| between("\"code\":\"", "\""));
        let message = between("<Message>", "</Message>");
        Self { status, code, message, body }
    }

    fn words(&self) -> String {
        let status = self.status.map(|status| status.to_string()).unwrap_or_default();
        let rest = match (self.code, self.message) {
            (Some(code), Some(message)) => format!("{code}: {message}"),
            (Some(code), None) => code.to_owned(),
            _ => self.body.to_owned(),
        };
        one_line(format!("{status} {rest}").trim())
    }
}

fn refusal_of(error: &Error, answer: &Answer<'_>, text: &str) -> Option<Refusal> {
    match answer.code.unwrap_or_default() {
        "NoSuchBucket" | "ContainerNotFound" | "ContainerBeingDeleted" => Some(Refusal::NoBucket),
        "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "ExpiredToken"
        | "InvalidToken"
        | "TokenRefreshRequired"
        | "RequestTimeTooSkewed"
        | "AuthenticationFailed"
        | "AuthenticationRequired"
        | "InvalidAuthenticationInfo"
        | "NoAuthenticationInformation" => Some(Refusal::Credentials),
        "AuthorizationHeaderMalformed"
        | "PermanentRedirect"
        | "IllegalLocationConstraintException" => Some(Refusal::Region),
        "NotImplemented" => Some(Refusal::Unsupported),
        _ => match answer.status {
            Some(401) => Some(Refusal::Credentials),
            Some(403) => Some(Refusal::Forbidden),
            Some(501) => Some(Refusal::Unsupported),
            Some(_) => None,
            None if text.contains("incorrectly configured region") => Some(Refusal::Region),
            None if asks_for_credentials(text) => Some(Refusal::Credentials),
            None if matches!(error, Error::Unauthenticated { .. }) => Some(Refusal::Credentials),
            None => None,
        },
    }
}

/// Whether the request that failed was one for credentials, which the clients make where none are
/// given: to the address at which clouds tell a machine its role.
fn asks_for_credentials(text: &str) -> bool {
    const SERVICES: [&str; 3] =
        ["://169.254.169.254/", "://metadata.google.internal/", "://metadata/"];
    SERVICES.iter().any(|service| text.contains(service))
}

/// The error with its causes, each told once.
fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        next = cause.source();
    }
    text
}

fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().take(DETAIL_CHARS_MAX).collect()
}

/// A remote store whose errors are [`RemoteError`]s.
#[derive(Clone)]
pub(crate) struct Explained {
    inner: Arc<dyn ObjectStore>,
    words: Arc<Words>,
}

impl Explained {
    pub(crate) fn new(
        inner: Arc<dyn ObjectStore>,
        provider: Provider,
        bucket: &str,
        secrets: Secrets,
    ) -> Self {
        let words = Words { provider, bucket: bucket.to_owned(), secrets };
        Self { inner, words: Arc::new(words) }
    }

    fn explained<T: 'static>(
        &self,
        stream: BoxStream<'static, Result<T>>,
    ) -> BoxStream<'static, Result<T>> {
        let words = Arc::clone(&self.words);
        stream.map_err(move |error| words.explain(error)).boxed()
    }
}

/// The client may print its credentials, so it is not shown.
impl fmt::Debug for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.words.store_name(), self.words.bucket)
    }
}

#[async_trait]
impl ObjectStore for Explained {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        self.inner.put_opts(location, payload, opts).await.map_err(|e| self.words.explain(e))
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        match self.inner.put_multipart_opts(location, opts).await {
            Ok(inner) => Ok(Box::new(ExplainedUpload { inner, words: Arc::clone(&self.words) })),
            Err(error) => Err(self.words.explain(error)),
        }
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let got = self.inner.get_opts(location, options).await;
        let mut got = got.map_err(|error| self.words.explain(error))?;
        if let GetResultPayload::Stream(body) = got.payload {
            got.payload = GetResultPayload::Stream(self.explained(body));
        }
        Ok(got)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.explained(self.inner.delete_stream(locations))
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.explained(self.inner.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.explained(self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await.map_err(|e| self.words.explain(e))
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await.map_err(|e| self.words.explain(e))
    }
}

#[derive(Debug)]
struct ExplainedUpload {
    inner: Box<dyn MultipartUpload>,
    words: Arc<Words>,
}

#[async_trait]
impl MultipartUpload for ExplainedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (part, words) = (self.inner.put_part(data), Arc::clone(&self.words));
        Box::pin(async move { part.await.map_err(|error| words.explain(error)) })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.inner.complete().await.map_err(|error| self.words.explain(error))
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await.map_err(|error| self.words.explain(error))
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use tidelog_core::ErrorKind;

    use super::*;
    use crate::error::{io_cause, kind_of};

    fn words() -> Words {
        let mut secrets = Secrets::default();
        secrets.add("canary");
        Words { provider: Provider::S3, bucket: "data".to_owned(), secrets }
    }

    fn answered(status: &str, body: &str) -> Error {
        let text = format!(
            "Error performing PUT http://127.0.0.1:1/data/a in 1ms - Server returned non-2xx \
             status code: {status}: {body}"
        );
        Error::Generic { store: "S3", source: text.into() }
    }

    #[test]
    fn answers_become_kinds_and_remedies() {
        let error =
            |code: &str| format!("<Error><Code>{code}</Code><Message>so it is</Message></Error>");
        for (status, code, kind, remedy) in [
            ("404 Not Found", "NoSuchBucket", ErrorKind::NotFound, "make it"),
            (
                "403 Forbidden",
                "InvalidAccessKeyId",
                ErrorKind::PermissionDenied,
                "AWS_ACCESS_KEY_ID",
            ),
            ("403 Forbidden", "AccessDenied", ErrorKind::PermissionDenied, "allow reading"),
            ("400 Bad Request", "AuthorizationHeaderMalformed", ErrorKind::Unavailable, "region"),
            ("501 Not Implemented", "NotImplemented", ErrorKind::Unsupported, "cannot do that"),
            ("500 Internal Server Error", "InternalError", ErrorKind::Unavailable, "so it is"),
        ] {
            let found = words().explain(answered(status, &error(code)));
            assert_eq!(kind_of(&found), kind, "{found}");
            assert!(found.to_string().contains(remedy), "{found}");
            assert_eq!(remote_error(&found).unwrap().status(), status[..3].parse().ok());
        }
    }

    #[test]
    fn what_the_log_decides_by_stays() {
        let source = || answered("412 Precondition Failed", "").into();
        let exists = Error::AlreadyExists { path: "a".into(), source: source() };
        assert!(matches!(words().explain(exists), Error::AlreadyExists { .. }));
        let missing = Error::NotFound { path: "a".into(), source: source() };
        assert!(matches!(words().explain(missing), Error::NotFound { .. }));
    }

    #[test]
    fn a_broken_connection_is_no_error_of_the_local_disk() {
        let reset = io::Error::from_raw_os_error(104);
        let words = words().explain(Error::Generic { store: "S3", source: Box::new(reset) });
        assert!(io_cause(&words).is_none());
        assert!(words.to_string().contains("reset"), "{words}");
    }

    #[test]
    fn secrets_do_not_get_through() {
        for body in ["<Code>X</Code><Message>canary</Message>", "canary", "a\nb canary c"] {
            let found = words().explain(answered("400 Bad Request", body));
            assert!(
                !format!("{found} {found:?} {}", chain(&found)).contains("canary"),
                "{found:?}"
            );
        }
    }
}
