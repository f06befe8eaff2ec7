//! HTTP/1.1 by hand: a test must be able to break off, stall, lie and count.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::Sparse;

/// A request, and how many bytes of body its answer had.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    pub method: String,
    pub target: String,
    pub headers: BTreeMap<String, String>,
    pub sent: u64,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

#[derive(Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Body,
    /// The connection ends after so many bytes of the body.
    pub cut: Option<u64>,
    /// Nothing more comes after so many bytes.
    pub stall: Option<u64>,
}

#[derive(Clone)]
pub enum Body {
    Bytes(Vec<u8>),
    Zeros(u64),
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: Body::Bytes(body.into()), cut: None, stall: None }
    }

    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

type Handler = dyn Fn(&Asked) -> Reply + Send + Sync;

/// A server on 127.0.0.1 that ends with the test.
pub struct Server {
    pub address: SocketAddr,
    log: Arc<Mutex<Vec<Asked>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub async fn start(handler: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let handler: Arc<Handler> = Arc::new(handler);
        Self::listen(move |stream, log| {
            let handler = handler.clone();
            async move { answer(stream, &*handler, &log).await }
        })
        .await
    }

    /// Passes everything on to another server, and counts.
    pub async fn in_front_of(upstream: SocketAddr) -> Self {
        Self::listen(move |stream, log| async move { relay(stream, upstream, &log).await }).await
    }

    async fn listen<F>(serve: impl Fn(TcpStream, Arc<Mutex<Vec<Asked>>>) -> F + Send + 'static) -> Self
    where
        F: Future<Output = Option<()>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let seen = log.clone();
        let task = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                // Or every answer waits 40 ms for a delayed acknowledgement.
                stream.set_nodelay(true).unwrap();
                open.spawn(serve(stream, seen.clone()));
            }
        });
        Self { address, log, task }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn log(&self) -> Vec<Asked> {
        self.log.lock().unwrap().clone()
    }

    pub fn bytes(&self) -> u64 {
        self.log().iter().map(|asked| asked.sent).sum()
    }
}

async fn head<R: AsyncBufReadExt + Unpin>(
    reader: &mut R,
) -> Option<(String, BTreeMap<String, String>, Vec<u8>)> {
    let (mut first, mut headers, mut raw) = (None, BTreeMap::new(), Vec::new());
    loop {
        let mut line = Vec::new();
        if reader.read_until(b'\n', &mut line).await.ok()? == 0 {
            return None;
        }
        raw.extend(&line);
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        match (&first, text.split_once(':')) {
            (None, _) => first = Some(text),
            (Some(first), _) if text.is_empty() => return Some((first.clone(), headers, raw)),
            (Some(_), Some((name, value))) => {
                headers.insert(name.to_lowercase(), value.trim().to_owned());
            }
            (Some(_), None) => return None,
        }
    }
}

fn asked(first: &str, headers: BTreeMap<String, String>) -> Asked {
    let mut words = first.split(' ').map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    Asked { method, target, headers, sent: 0 }
}

async fn answer(stream: TcpStream, handler: &Handler, log: &Mutex<Vec<Asked>>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let (first, headers, _) = head(&mut stream).await?;
        let mut asked = asked(&first, headers);
        let reply = handler(&asked);
        let len = match &reply.body {
            Body::Bytes(bytes) => bytes.len() as u64,
            Body::Zeros(len) => *len,
        };
        let mut text = format!("HTTP/1.1 {} X\r\n", reply.status);
        for (name, value) in &reply.headers {
            text += &format!("{name}: {value}\r\n");
        }
        if !reply.headers.iter().any(|(name, _)| name == "transfer-encoding") {
            text += &format!("content-length: {len}\r\n");
        }
        let sent = reply.cut.or(reply.stall).unwrap_or(len).min(len);
        asked.sent = if asked.method == "HEAD" { 0 } else { sent };
        log.lock().unwrap().push(asked.clone());
        stream.write_all(format!("{text}\r\n").as_bytes()).await.ok()?;
        let mut left = asked.sent;
        while left > 0 {
            let step = left.min(1 << 16);
            let chunk = match &reply.body {
                Body::Bytes(bytes) => bytes[(asked.sent - left) as usize..][..step as usize].to_vec(),
                Body::Zeros(_) => vec![0; step as usize],
            };
            stream.write_all(&chunk).await.ok()?;
            left -= step;
        }
        stream.flush().await.ok()?;
        if reply.stall.is_some() {
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        if reply.cut.is_some() {
            return None;
        }
    }
}

async fn relay(client: TcpStream, upstream: SocketAddr, log: &Mutex<Vec<Asked>>) -> Option<()> {
    let mut client = BufReader::new(client);
    let upstream = TcpStream::connect(upstream).await.ok()?;
    upstream.set_nodelay(true).ok()?;
    let mut server = BufReader::new(upstream);
    loop {
        let (first, headers, raw) = head(&mut client).await?;
        server.write_all(&raw).await.ok()?;
        let mut asked = asked(&first, headers);
        if let Some(len) = asked.header("content-length") {
            let mut body = vec![0; len.parse().ok()?];
            client.read_exact(&mut body).await.ok()?;
            server.write_all(&body).await.ok()?;
        }
        let (_, headers, raw) = head(&mut server).await?;
        let len: u64 = headers.get("content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
        asked.sent = if asked.method == "HEAD" { 0 } else { len };
        log.lock().unwrap().push(asked.clone());
        client.write_all(&raw).await.ok()?;
        let mut body = (&mut server).take(asked.sent);
        tokio::io::copy_buf(&mut body, &mut client).await.ok()?;
        client.flush().await.ok()?;
    }
}

/// A file of a static server.
#[derive(Clone)]
pub struct File {
    pub content: Sparse,
    /// With its quotes; empty: none is sent.
    pub etag: String,
    pub ranges: bool,
    /// If-Match is answered by 412; some servers ignore it.
    pub if_match: bool,
}

impl File {
    pub fn new(bytes: impl Into<Vec<u8>>, etag: &str) -> Self {
        Self { content: Sparse::of(bytes.into()), etag: etag.into(), ranges: true, if_match: true }
    }
}

/// A static server's files, which a test may change while it runs.
#[derive(Clone, Default)]
pub struct Files(Arc<Mutex<BTreeMap<String, File>>>);

impl Files {
    pub fn put(&self, path: &str, file: File) {
        self.0.lock().unwrap().insert(path.into(), file);
    }

    pub fn serve(&self, asked: &Asked) -> Reply {
        let Some(file) = self.0.lock().unwrap().get(&asked.target).cloned() else {
            return Reply::new(404, "no such file");
        };
        if file.if_match && asked.header("if-match").is_some_and(|etag| etag != file.etag) {
            return Reply::new(412, "");
        }
        let size = file.content.len();
        let range = asked.header("range").filter(|_| file.ranges).and_then(|text| {
            let (from, to) = text.strip_prefix("bytes=")?.split_once('-')?;
            Some(from.parse::<u64>().ok()?..to.parse::<u64>().ok()? + 1)
        });
        let mut reply = match range {
            Some(range) if range.start >= size => {
                return Reply::new(416, "").with("content-range", format!("bytes */{size}"));
            }
            Some(range) => {
                let range = range.start..range.end.min(size);
                let shown = format!("bytes {}-{}/{size}", range.start, range.end - 1);
                Reply::new(206, file.content.read(range)).with("content-range", shown)
            }
            None if size < 64 << 20 => Reply::new(200, file.content.read(0..size)),
            None => Reply { body: Body::Zeros(size), ..Reply::new(200, "") },
        };
        if !file.etag.is_empty() {
            reply = reply.with("etag", file.etag.clone());
        }
        reply
    }
}
