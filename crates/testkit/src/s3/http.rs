//! HTTP/1.1 over a socket: just enough for an object store's client.

use std::io;

use bytes::{Bytes, BytesMut};
use percent_encoding::percent_decode_str;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use url::form_urlencoded;

const HEADERS_MAX: usize = 64;
const HEAD_BYTES_MAX: usize = 64 * 1024;
const BODY_BYTES_MAX: usize = 512 * 1024 * 1024;

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct HttpRequest {
    pub(crate) method: String,
    /// As it was sent, with its escapes.
    pub(crate) raw_path: String,
    /// Decoded, in order.
    pub(crate) query: Vec<(String, String)>,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
}

impl HttpRequest {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// Bucket and key, decoded; the key is empty for requests to a bucket.
    pub(crate) fn bucket_and_key(&self) -> (String, String) {
        let path = self.raw_path.trim_start_matches('/');
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        (decode(bucket), decode(key))
    }
}

/// One answer.
#[derive(Debug, Clone)]
pub(crate) struct HttpAnswer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Bytes,
    /// The length to tell where the body stays away, as after HEAD.
    pub(crate) length: Option<u64>,
}

impl HttpAnswer {
    pub(crate) fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Bytes::new(), length: None }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn with_body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// An error as S3 tells it.
    pub(crate) fn error(status: u16, code: &str, message: &str) -> Self {
        let xml = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code>\
             <Message>{message}</Message></Error>"
        );
        Self::new(status).with("Content-Type", "application/xml").with_body(xml)
    }

    /// The answer to this request: after HEAD the body stays away, that of an error too.
    pub(crate) fn to(mut self, request: &HttpRequest) -> Self {
        if request.method == "HEAD" {
            self.length = self.length.or(Some(self.body.len() as u64));
            self.body = Bytes::new();
        }
        self
    }

    fn head(&self) -> String {
        let length = self.length.unwrap_or(self.body.len() as u64);
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if self.status != 204 {
            head.push_str(&format!("Content-Length: {length}\r\n"));
        }
        head.push_str("\r\n");
        head
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        206 => "Partial Content",
        304 => "Not Modified",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        409 => "Conflict",
        412 => "Precondition Failed",
        416 => "Range Not Satisfiable",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        _ => "Unknown",
    }
}

/// A client's connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: BytesMut,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    /// The next request; `None` when the client has closed the connection.
    pub(crate) async fn next(&mut self) -> io::Result<Option<HttpRequest>> {
        let (mut request, length) = loop {
            if let Some(found) = self.parse_head()? {
                break found;
            }
            if self.buffer.len() > HEAD_BYTES_MAX {
                return Err(wrong("the head of the request is too long"));
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        };
        if length > BODY_BYTES_MAX {
            return Err(wrong("the body of the request is too long"));
        }
        while self.buffer.len() < length {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(wrong("the body of the request broke off"));
            }
        }
        request.body = self.buffer.split_to(length).freeze();
        Ok(Some(request))
    }

    /// Takes a whole head out of the buffer, with the length of the body that follows it.
    fn parse_head(&mut self) -> io::Result<Option<(HttpRequest, usize)>> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut parsed = httparse::Request::new(&mut headers);
        let status = parsed.parse(&self.buffer).map_err(wrong)?;
        let httparse::Status::Complete(end) = status else { return Ok(None) };
        let target = parsed.path.unwrap_or("/");
        let (raw_path, query) = target.split_once('?').unwrap_or((target, ""));
        let header = |header: &httparse::Header<'_>| {
            let value = String::from_utf8_lossy(header.value).trim().to_owned();
            (header.name.to_ascii_lowercase(), value)
        };
        let request = HttpRequest {
            method: parsed.method.unwrap_or("GET").to_owned(),
            raw_path: raw_path.to_owned(),
            query: form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
            headers: parsed.headers.iter().map(header).collect(),
            body: Bytes::new(),
        };
        if request.header("transfer-encoding").is_some() {
            return Err(wrong("this server reads bodies of a known length only"));
        }
        let length = request.header("content-length").unwrap_or("0").parse().map_err(wrong)?;
        drop(self.buffer.split_to(end));
        Ok(Some((request, length)))
    }

    pub(crate) async fn answer(&mut self, answer: &HttpAnswer) -> io::Result<()> {
        self.stream.write_all(answer.head().as_bytes()).await?;
        self.stream.write_all(&answer.body).await?;
        self.stream.flush().await
    }

    /// Sends the head and half of the body, then nothing more; where there is no body, half of the
    /// head.
    pub(crate) async fn answer_half(&mut self, answer: &HttpAnswer) -> io::Result<()> {
        let head = answer.head();
        let cut = if answer.body.is_empty() { head.len() / 2 } else { head.len() };
        self.stream.write_all(head.as_bytes().get(..cut).unwrap_or_default()).await?;
        let half = answer.body.len() / 2;
        self.stream.write_all(answer.body.get(..half).unwrap_or_default()).await?;
        self.stream.shutdown().await
    }

    /// Ends the connection as if the machine had died.
    pub(crate) fn reset(self) -> io::Result<()> {
        self.stream.set_zero_linger()
    }
}

fn wrong(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
