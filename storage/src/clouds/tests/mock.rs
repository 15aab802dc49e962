//! A small server that speaks enough of S3 (and of Google's form of it) to be a cloud, and misbehaves on request.

#![expect(clippy::disallowed_methods, reason = "a real server, on threads of its own")]

use crate::{clouds::receipt::content_md5, ids::Md5};
use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

/// What the server tells of an object's MD5.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tags {
    Md5,
    /// A tag that is no MD5 by its looks.
    Opaque,
    /// A tag that looks like an MD5, of encrypted bytes.
    Kms,
    Missing,
    /// `x-goog-hash` beside an opaque tag.
    Google,
}

/// How it misbehaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    Status(u16),
    NoBucket,
    /// As Azure says that a policy keeps an object.
    Immutable,
    /// Closes the connection instead of answering.
    HangUp,
    /// Never answers.
    Silent,
    /// Stores something else than was put.
    Flip,
    /// Tells the MD5 of something else.
    WrongTag,
    /// Closes the connection in the middle of a body.
    Cut,
    /// Ignores ranges.
    WholeObject,
    /// Answers with a success and nonsense.
    Garbage,
}

pub struct Mock {
    pub url: String,
    pub state: Arc<State>,
}

pub struct State {
    tags: Tags,
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
    fault: Mutex<Option<Fault>>,
    pub requests: AtomicUsize,
    pub page: AtomicUsize,
    /// Lists from the beginning always, and answers a range as if it were none.
    pub is_sloppy: AtomicBool,
}

struct Request {
    method: String,
    key: String,
    query: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

#[derive(Default)]
struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Mock {
    pub fn start(tags: Tags) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(State {
            tags,
            objects: Mutex::default(),
            fault: Mutex::default(),
            requests: AtomicUsize::new(0),
            page: AtomicUsize::new(1_000),
            is_sloppy: AtomicBool::new(false),
        });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || state.serve(&stream));
            }
        });
        Self { url, state }
    }

    pub fn fail(&self, fault: Fault) {
        *self.state.fault.lock().unwrap() = Some(fault);
    }
}

fn decode(text: &str) -> String {
    let mut pieces = text.split('%');
    let mut plain = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        plain.push(u8::from_str_radix(&piece[..2], 16).unwrap());
        plain.extend_from_slice(&piece.as_bytes()[2..]);
    }
    String::from_utf8(plain).unwrap()
}

fn read(reader: &mut BufReader<&TcpStream>) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let (method, rest) = line.split_once(' ').unwrap();
    let target = rest.split_once(' ').unwrap().0;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let query = query.split('&').filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k.to_owned(), decode(v)));
    let key = decode(path.strip_prefix("/bucket").expect("the path names the bucket").trim_start_matches('/'));
    let (method, query) = (method.to_owned(), query.collect());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some(Request { method, key, query, headers, body }))
}

fn refusal(status: u16, code: &str) -> Answer {
    let body = format!("<Error><Code>{code}</Code><Message>{code}, says the mock</Message></Error>");
    Answer { status, body: body.into(), ..Answer::default() }
}

impl State {
    fn serve(&self, stream: &TcpStream) {
        stream.set_nodelay(true).unwrap();
        let mut reader = BufReader::new(stream);
        while let Ok(Some(request)) = read(&mut reader) {
            self.requests.fetch_add(1, Ordering::Relaxed);
            let fault = *self.fault.lock().unwrap();
            match fault {
                Some(Fault::HangUp) => return,
                Some(Fault::Silent) => {
                    // Until the client gives up and closes the connection.
                    let _ = reader.read_to_end(&mut Vec::new());
                    return;
                }
                _ => {}
            }
            let answer = self.answer(&request, fault);
            let mut text =
                format!("HTTP/1.1 {} Mock\r\nlast-modified: Fri, 01 Mar 2024 00:00:00 GMT\r\n", answer.status);
            for (name, value) in &answer.headers {
                text += &format!("{name}: {value}\r\n");
            }
            if request.method != "HEAD" {
                text += &format!("content-length: {}\r\n", answer.body.len());
            }
            let mut bytes = format!("{text}\r\n").into_bytes();
            if request.method != "HEAD" {
                bytes.extend_from_slice(&answer.body);
            }
            if fault == Some(Fault::Cut) {
                bytes.truncate(bytes.len() - 1);
            }
            let mut writer = stream;
            if writer.write_all(&bytes).is_err() || fault == Some(Fault::Cut) {
                return;
            }
        }
    }

    fn answer(&self, request: &Request, fault: Option<Fault>) -> Answer {
        match fault {
            Some(Fault::Status(status)) => return refusal(status, "InternalError"),
            Some(Fault::NoBucket) => return refusal(404, "NoSuchBucket"),
            Some(Fault::Immutable) => return refusal(409, "BlobImmutableDueToPolicy"),
            Some(Fault::Garbage) => return Answer { status: 200, body: b"<nonsense".to_vec(), ..Answer::default() },
            _ => {}
        }
        let mut objects = self.objects.lock().unwrap();
        match request.method.as_str() {
            "PUT" => {
                let announced = request.headers.get("content-md5").expect("every put announces its MD5");
                if *announced != content_md5(Md5::of(&request.body)) {
                    return refusal(400, "BadDigest");
                }
                let mut body = request.body.clone();
                match fault {
                    Some(Fault::Flip) => body[0] ^= 1,
                    Some(Fault::WrongTag) => {
                        return Answer { status: 200, headers: self.tags_of(b"something else"), ..Answer::default() };
                    }
                    _ => {}
                }
                let headers = self.tags_of(&body);
                objects.insert(request.key.clone(), body);
                Answer { status: 200, headers, ..Answer::default() }
            }
            "DELETE" => match objects.remove(&request.key) {
                Some(_) => Answer { status: 204, ..Answer::default() },
                None => refusal(404, "NoSuchKey"),
            },
            _ if request.key.is_empty() => self.list(&objects, request),
            method => match objects.get(&request.key) {
                Some(body) => self.object(body, request, method == "HEAD", fault),
                None => refusal(404, "NoSuchKey"),
            },
        }
    }

    fn tags_of(&self, body: &[u8]) -> Vec<(&'static str, String)> {
        let md5 = Md5::of(body);
        let opaque = ("etag", "\"opaque-1\"".to_owned());
        match self.tags {
            Tags::Md5 => vec![("etag", format!("\"{md5}\""))],
            Tags::Opaque => vec![opaque],
            Tags::Kms => vec![
                ("etag", format!("\"{}\"", Md5::of(b"encrypted"))),
                ("x-amz-server-side-encryption", "aws:kms".into()),
            ],
            Tags::Missing => vec![],
            Tags::Google => vec![opaque, ("x-goog-hash", format!("crc32c=AAAAAA==,md5={}", content_md5(md5)))],
        }
    }

    fn object(&self, body: &[u8], request: &Request, head: bool, fault: Option<Fault>) -> Answer {
        let mut headers = self.tags_of(body);
        let range = request.headers.get("range").filter(|_| fault != Some(Fault::WholeObject));
        let Some(range) = range else {
            if head {
                headers.push(("content-length", body.len().to_string()));
            }
            return Answer { status: 200, headers, body: body.to_vec() };
        };
        let (from, to) = range.strip_prefix("bytes=").and_then(|range| range.split_once('-')).unwrap();
        let (from, to): (usize, usize) = (from.parse().unwrap(), to.parse().unwrap());
        if from >= body.len() {
            return refusal(416, "InvalidRange");
        }
        let (to, is_sloppy) = (to.min(body.len() - 1), self.is_sloppy.load(Ordering::Relaxed));
        let is_whole = from == 0 && to + 1 == body.len();
        if !(is_sloppy && is_whole) {
            headers.push(("content-range", format!("bytes {from}-{to}/{}", body.len())));
        }
        Answer { status: if is_sloppy { 200 } else { 206 }, headers, body: body[from..=to].to_vec() }
    }

    fn list(&self, objects: &BTreeMap<String, Vec<u8>>, request: &Request) -> Answer {
        let text = |name: &str| request.query.get(name).map_or("", String::as_str);
        let token = text("continuation-token");
        let start = if self.is_sloppy.load(Ordering::Relaxed) { "" } else { text("start-after") };
        let after = start.max(token);
        let found = objects.iter().filter(|(key, _)| key.starts_with(text("prefix")) && key.as_str() > after);
        let page = self.page.load(Ordering::Relaxed).min(text("max-keys").parse().unwrap_or(1_000));
        let (mut contents, mut last) = (String::new(), None);
        let left = found.clone().count();
        for (key, body) in found.take(page) {
            let tag = self.tags_of(body).into_iter().find(|(name, _)| *name == "etag").map(|(_, tag)| tag);
            let tag = tag.map(|tag| format!("<ETag>{}</ETag>", tag.replace('"', "&quot;"))).unwrap_or_default();
            contents += &format!(
                "<Contents><Key>{key}</Key><Size>{}</Size>{tag}<LastModified>2024-03-01T00:00:00.000Z</LastModified></Contents>",
                body.len()
            );
            last = Some(key);
        }
        if let Some(last) = last.filter(|_| left > page) {
            contents += &format!("<NextContinuationToken>{last}</NextContinuationToken>");
        }
        let body = format!("<?xml version=\"1.0\"?><ListBucketResult>{contents}</ListBucketResult>");
        Answer { status: 200, body: body.into(), ..Answer::default() }
    }
}
