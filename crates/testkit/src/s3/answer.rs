//! Request → answer.

use std::ops::Range;

use jiff::Timestamp;
use tidelog_core::WriteTime;

use super::faults::S3Operation;
use super::http::{HttpAnswer, HttpRequest};
use super::objects::{Condition, Listing, Object, Refused};
use super::{Dialect, Shared};

/// Settings that hold for one request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mode {
    pub(crate) read_only: bool,
    pub(crate) ignore_conditions: bool,
    pub(crate) page_max: usize,
    pub(crate) stale: u64,
}

/// What a request asks for; `None` if this server does not know it.
pub(crate) fn operation_of(request: &HttpRequest) -> Option<S3Operation> {
    let (_, key) = request.bucket_and_key();
    let asks = |name: &str| request.query(name).is_some();
    Some(match (request.method.as_str(), key.is_empty()) {
        ("GET", true) if request.query("list-type") == Some("2") => S3Operation::List,
        ("POST", true) if asks("delete") => S3Operation::DeleteMany,
        ("GET", false) => S3Operation::Get,
        ("HEAD", false) => S3Operation::Head,
        ("POST", false) if asks("uploads") => S3Operation::CreateUpload,
        ("POST", false) if asks("uploadId") => S3Operation::CompleteUpload,
        ("PUT", false) if asks("uploadId") => S3Operation::PutPart,
        ("PUT", false) if copy_source(request).is_some() => S3Operation::Copy,
        ("PUT", false) => S3Operation::Put,
        ("DELETE", false) if asks("uploadId") => S3Operation::AbortUpload,
        ("DELETE", false) => S3Operation::Delete,
        _ => return None,
    })
}

/// Does what a request asks for.
pub(crate) fn answer(shared: &Shared, request: &HttpRequest, mode: Mode) -> HttpAnswer {
    let Some(operation) = operation_of(request) else {
        let message =
            "A header or query you provided implies functionality that is not implemented.";
        return HttpAnswer::error(501, "NotImplemented", message);
    };
    if let Err(refused) = shared.buckets().check_bucket(&request.bucket_and_key().0) {
        return refusal(refused);
    }
    if mode.read_only && operation.changes() {
        return HttpAnswer::error(403, "AccessDenied", "Access Denied");
    }
    let call = Call { shared, request, mode };
    let done = match operation {
        S3Operation::Get | S3Operation::Head => call.get(operation == S3Operation::Head),
        S3Operation::Put => call.put(),
        S3Operation::Copy => call.copy(),
        S3Operation::Delete => call.delete(),
        S3Operation::DeleteMany => call.delete_many(),
        S3Operation::List => call.list(),
        S3Operation::CreateUpload => call.create_upload(),
        S3Operation::PutPart => call.put_part(),
        S3Operation::CompleteUpload => call.complete_upload(),
        S3Operation::AbortUpload => call.abort_upload(),
    };
    done.unwrap_or_else(refusal)
}

fn refusal(refused: Refused) -> HttpAnswer {
    let (status, code, message) = match refused {
        Refused::NoBucket => (404, "NoSuchBucket", "The specified bucket does not exist"),
        Refused::NoKey => (404, "NoSuchKey", "The specified key does not exist."),
        Refused::NoUpload => (404, "NoSuchUpload", "The specified upload does not exist."),
        Refused::Part => (400, "InvalidPart", "One or more of the parts could not be found."),
        Refused::Condition => (
            412,
            "PreconditionFailed",
            "At least one of the pre-conditions you specified did not hold",
        ),
    };
    HttpAnswer::error(status, code, message)
}

struct Call<'a> {
    shared: &'a Shared,
    request: &'a HttpRequest,
    mode: Mode,
}

type Done = Result<HttpAnswer, Refused>;

impl Call<'_> {
    fn get(&self, head: bool) -> Done {
        let (bucket, key) = self.request.bucket_and_key();
        let object = self.shared.buckets().get(&bucket, &key)?;
        let tag =
            |name: &str| self.request.header(name).map(|tag| tag == object.e_tag || tag == "*");
        if tag("if-match") == Some(false) {
            return Err(Refused::Condition);
        }
        if tag("if-none-match") == Some(true) {
            return Ok(described(&object, HttpAnswer::new(304)));
        }
        let size = object.bytes.len();
        let ranged = self.request.header("range").map(|range| parse_range(range, size));
        let (mut answer, range) = match ranged {
            None => (HttpAnswer::new(200), 0..size),
            Some(Some(range)) => {
                let told = format!("bytes {}-{}/{size}", range.start, range.end - 1);
                (HttpAnswer::new(206).with("Content-Range", told), range)
            }
            Some(None) => {
                let message = "The requested range is not satisfiable";
                return Ok(HttpAnswer::error(416, "InvalidRange", message));
            }
        };
        answer.length = Some(range.len() as u64);
        if !head {
            answer.body = object.bytes.slice(range);
        }
        Ok(described(&object, answer.with("Accept-Ranges", "bytes")))
    }

    fn put(&self) -> Done {
        let (bucket, key) = self.request.bucket_and_key();
        let (bytes, condition) = (self.request.body.clone(), self.condition());
        let object = self.shared.buckets().put(&bucket, &key, bytes, &condition)?;
        Ok(described(&object, HttpAnswer::new(200)))
    }

    fn copy(&self) -> Done {
        let (bucket, key) = self.request.bucket_and_key();
        let source = HttpRequest {
            raw_path: copy_source(self.request).unwrap_or_default().to_owned(),
            ..self.request.clone()
        };
        let (from_bucket, from_key) = source.bucket_and_key();
        let mut buckets = self.shared.buckets();
        let bytes = buckets.get(&from_bucket, &from_key)?.bytes;
        let object = buckets.put(&bucket, &key, bytes, &self.condition())?;
        let xml =
            format!("<CopyObjectResult><ETag>{}</ETag></CopyObjectResult>", escaped(&object.e_tag));
        Ok(xml_answer(&xml))
    }

    fn delete(&self) -> Done {
        let (bucket, key) = self.request.bucket_and_key();
        match self.shared.buckets().delete(&bucket, &key) {
            // S3 does not tell whether there was anything.
            Err(Refused::NoKey) if self.shared.dialect == Dialect::S3 => Ok(HttpAnswer::new(204)),
            deleted => deleted.map(|()| HttpAnswer::new(204)),
        }
    }

    fn delete_many(&self) -> Done {
        let (bucket, _) = self.request.bucket_and_key();
        let mut buckets = self.shared.buckets();
        let mut xml = String::from("<DeleteResult>");
        for key in texts(&String::from_utf8_lossy(&self.request.body), "Key") {
            match buckets.delete(&bucket, &key) {
                Ok(()) | Err(Refused::NoKey) => {}
                Err(refused) => return Err(refused),
            }
            xml.push_str(&format!("<Deleted><Key>{}</Key></Deleted>", escaped(&key)));
        }
        xml.push_str("</DeleteResult>");
        Ok(xml_answer(&xml))
    }

    fn list(&self) -> Done {
        let (bucket, _) = self.request.bucket_and_key();
        let text = |name: &str| self.request.query(name).map(str::to_owned);
        let asked = text("max-keys").and_then(|max| max.parse().ok()).unwrap_or(usize::MAX);
        let listing = Listing {
            prefix: text("prefix").unwrap_or_default(),
            delimiter: text("delimiter"),
            after: text("continuation-token").or_else(|| text("start-after")).unwrap_or_default(),
            max: self.mode.page_max.min(asked),
            stale: self.mode.stale,
        };
        let page = self.shared.buckets().list(&bucket, &listing)?;
        let mut xml = format!(
            "<ListBucketResult><Name>{}</Name><IsTruncated>{}</IsTruncated>",
            escaped(&bucket),
            page.next.is_some()
        );
        for (key, object) in &page.objects {
            xml.push_str(&format!(
                "<Contents><Key>{}</Key><LastModified>{}</LastModified><ETag>{}</ETag>\
                 <Size>{}</Size></Contents>",
                escaped(key),
                timestamp(object.modified),
                escaped(&object.e_tag),
                object.bytes.len()
            ));
        }
        for prefix in &page.prefixes {
            let prefix = escaped(prefix);
            xml.push_str(&format!("<CommonPrefixes><Prefix>{prefix}</Prefix></CommonPrefixes>"));
        }
        if let Some(next) = &page.next {
            let next = escaped(next);
            xml.push_str(&format!("<NextContinuationToken>{next}</NextContinuationToken>"));
        }
        xml.push_str("</ListBucketResult>");
        Ok(xml_answer(&xml))
    }

    fn create_upload(&self) -> Done {
        let (bucket, key) = self.request.bucket_and_key();
        let id = self.shared.buckets().create_upload(&bucket, &key)?;
        Ok(xml_answer(&format!(
            "<InitiateMultipartUploadResult><Bucket>{}</Bucket><Key>{}</Key>\
             <UploadId>{id}</UploadId></InitiateMultipartUploadResult>",
            escaped(&bucket),
            escaped(&key)
        )))
    }

    fn upload_id(&self) -> &str {
        self.request.query("uploadId").unwrap_or_default()
    }

    fn put_part(&self) -> Done {
        let number = self.request.query("partNumber").and_then(|number| number.parse().ok());
        let number = number.ok_or(Refused::Part)?;
        let bytes = self.request.body.clone();
        let e_tag = self.shared.buckets().put_part(self.upload_id(), number, bytes)?;
        Ok(HttpAnswer::new(200).with("ETag", e_tag))
    }

    fn complete_upload(&self) -> Done {
        let body = String::from_utf8_lossy(&self.request.body);
        let numbers = texts(&body, "PartNumber").into_iter().map(|number| number.parse());
        let numbers: Vec<u32> = numbers.collect::<Result<_, _>>().map_err(|_| Refused::Part)?;
        let parts: Vec<(u32, String)> = numbers.into_iter().zip(texts(&body, "ETag")).collect();
        let condition = self.condition();
        let object = self.shared.buckets().complete_upload(self.upload_id(), &parts, &condition)?;
        let e_tag = escaped(&object.e_tag);
        let xml = format!(
            "<CompleteMultipartUploadResult><ETag>{e_tag}</ETag></CompleteMultipartUploadResult>"
        );
        Ok(xml_answer(&xml).with("x-goog-generation", object.generation.to_string()))
    }

    fn abort_upload(&self) -> Done {
        self.shared.buckets().abort_upload(self.upload_id())?;
        Ok(HttpAnswer::new(204))
    }

    fn condition(&self) -> Condition {
        if self.mode.ignore_conditions {
            return Condition::None;
        }
        let header = |name: &str| self.request.header(name);
        match self.shared.dialect {
            Dialect::S3 if header("if-none-match") == Some("*") => Condition::Absent,
            Dialect::S3 => {
                header("if-match").map_or(Condition::None, |tag| Condition::Tag(tag.to_owned()))
            }
            Dialect::Gcs => match header("x-goog-if-generation-match").map(str::parse) {
                None => Condition::None,
                Some(Ok(0)) => Condition::Absent,
                Some(Ok(number)) => Condition::Generation(number),
                Some(Err(_)) => Condition::Generation(u64::MAX),
            },
        }
    }
}

fn copy_source(request: &HttpRequest) -> Option<&str> {
    request.header("x-amz-copy-source").or_else(|| request.header("x-goog-copy-source"))
}

fn described(object: &Object, answer: HttpAnswer) -> HttpAnswer {
    let moment = Timestamp::from_microsecond(object.modified.micros()).unwrap_or_default();
    let modified = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&moment);
    answer
        .with("ETag", object.e_tag.clone())
        .with("Last-Modified", modified.unwrap_or_default())
        .with("x-goog-generation", object.generation.to_string())
}

fn timestamp(time: WriteTime) -> String {
    let moment = Timestamp::from_microsecond(time.micros()).unwrap_or_default();
    format!("{moment:.3}")
}

fn xml_answer(xml: &str) -> HttpAnswer {
    let whole = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{xml}");
    HttpAnswer::new(200).with("Content-Type", "application/xml").with_body(whole)
}

/// `bytes=a-b`, `bytes=a-` or `bytes=-n`; `None` if it lies outside.
fn parse_range(header: &str, size: usize) -> Option<Range<usize>> {
    let (start, end) = header.strip_prefix("bytes=")?.split_once('-')?;
    let range = match (start, end) {
        ("", last) => size.saturating_sub(last.parse().ok()?)..size,
        (start, "") => start.parse().ok()?..size,
        (start, end) => {
            let end: usize = end.parse().ok()?;
            start.parse().ok()?..end.saturating_add(1).min(size)
        }
    };
    (range.start < range.end).then_some(range)
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            _ => out.push(c),
        }
    }
    out
}

/// The texts of all elements of this name, in order. Enough for what the client writes.
fn texts(xml: &str, name: &str) -> Vec<String> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let mut found = Vec::new();
    let mut rest = xml;
    while let Some((text, after)) =
        rest.split_once(&open).and_then(|(_, inner)| inner.split_once(&close))
    {
        let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"");
        found.push(text.replace("&apos;", "'").replace("&amp;", "&"));
        rest = after;
    }
    found
}
