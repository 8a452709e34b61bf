//! The check of SigV4 signatures, after Amazon's description of it.

use ring::{digest, hmac};

use super::http::{HttpAnswer, HttpRequest};
use super::{ACCESS_KEY_ID, Dialect, SECRET_ACCESS_KEY};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// Refuses a request that the owner of the access key did not sign.
pub(crate) fn check(dialect: Dialect, request: &HttpRequest) -> Result<(), HttpAnswer> {
    // A token could only be had from a service of Google's.
    if dialect == Dialect::Gcs {
        return Ok(());
    }
    let given = request.header("authorization").unwrap_or_default();
    let denied = || HttpAnswer::error(403, "AccessDenied", "Access Denied");
    let signed = Signed::parse(given).ok_or_else(denied)?;
    if signed.key_id != ACCESS_KEY_ID {
        let message = "The AWS Access Key Id you provided does not exist in our records.";
        return Err(HttpAnswer::error(403, "InvalidAccessKeyId", message));
    }
    let expected = signed.signature_of(request, SECRET_ACCESS_KEY).ok_or_else(denied)?;
    if expected != signed.signature {
        let message = "The request signature we calculated does not match the signature you \
                       provided. Check your key and signing method.";
        return Err(HttpAnswer::error(403, "SignatureDoesNotMatch", message));
    }
    check_body(request)
}

/// The signature covers the hash of the body that the client tells; the body must have it.
fn check_body(request: &HttpRequest) -> Result<(), HttpAnswer> {
    match request.header("x-amz-content-sha256") {
        Some("UNSIGNED-PAYLOAD") => Ok(()),
        Some(told) if told == hex(digest::digest(&digest::SHA256, &request.body).as_ref()) => {
            Ok(())
        }
        _ => {
            let message = "The provided 'x-amz-content-sha256' header does not match what was \
                           computed.";
            Err(HttpAnswer::error(400, "XAmzContentSHA256Mismatch", message))
        }
    }
}

/// The parts of an `Authorization` header.
struct Signed<'a> {
    key_id: &'a str,
    /// Date, region and service, and a constant.
    scope: [&'a str; 4],
    headers: Vec<&'a str>,
    signature: &'a str,
}

impl<'a> Signed<'a> {
    fn parse(header: &'a str) -> Option<Self> {
        let parts = header.strip_prefix(ALGORITHM)?;
        let part = |name: &str| {
            parts.split(',').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='))
        };
        let credential: Vec<&str> = part("Credential")?.split('/').collect();
        let (key_id, scope) = credential.split_first()?;
        Some(Self {
            key_id,
            scope: scope.try_into().ok()?,
            headers: part("SignedHeaders")?.split(';').collect(),
            signature: part("Signature")?,
        })
    }

    fn signature_of(&self, request: &HttpRequest, secret: &str) -> Option<String> {
        let [date, region, service, end] = self.scope;
        let canonical = digest::digest(&digest::SHA256, self.canonical(request)?.as_bytes());
        let text = format!(
            "{ALGORITHM}\n{}\n{}\n{}",
            request.header("x-amz-date")?,
            self.scope.join("/"),
            hex(canonical.as_ref())
        );
        let mut key = format!("AWS4{secret}").into_bytes();
        for step in [date, region, service, end] {
            key = sign(&key, step);
        }
        Some(hex(&sign(&key, &text)))
    }

    /// The request in the one form that both sides sign.
    fn canonical(&self, request: &HttpRequest) -> Option<String> {
        let mut query: Vec<String> = request
            .query
            .iter()
            .map(|(name, value)| format!("{}={}", escaped(name), escaped(value)))
            .collect();
        query.sort_unstable();
        let mut headers = String::new();
        for name in &self.headers {
            headers.push_str(&format!("{name}:{}\n", request.header(name)?));
        }
        Some(format!(
            "{}\n{}\n{}\n{headers}\n{}\n{}",
            request.method,
            request.raw_path,
            query.join("&"),
            self.headers.join(";"),
            request.header("x-amz-content-sha256")?
        ))
    }
}

fn sign(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from_digit(half.into(), 16).unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}
