//! What stands between a device and its relay and speaks HTTP: a proxy with limits, a portal, a web server at a wrong address.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A request as far as answers depend on it.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET`, `POST`.
    pub method: String,
    /// The request line and the headers, in lower case.
    pub head: String,
    /// Bytes of the body.
    pub body: usize,
    /// Since the server began.
    pub at: Duration,
}

impl Request {
    /// It asks for a WebSocket.
    pub fn is_upgrade(&self) -> bool {
        self.head.contains("upgrade: websocket")
    }
}

/// What becomes of a request.
pub enum Answer {
    /// An answer of its own: status line, headers without line ends, body.
    Say(&'static str, Vec<String>, String),
    /// It goes to the relay.
    Pass,
    /// Nothing, until the other side gives up.
    Silence,
}

impl Answer {
    /// A page in HTML.
    pub fn page(status: &'static str) -> Self {
        let page = "<!DOCTYPE html><html><title>Aloha</title><p>E komo mai</html>";
        Self::Say(status, vec!["content-type: text/html; charset=utf-8".into()], page.into())
    }

    /// A page that leads elsewhere.
    pub fn redirect(status: &'static str, target: &str) -> Self {
        Self::Say(
            status,
            vec![format!("location: {target}"), "content-type: text/html".into()],
            String::new(),
        )
    }
}

type Judge = dyn Fn(&Request) -> Answer + Send + Sync;

/// A server on this machine, until it is dropped.
pub struct Web {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    stopped: Arc<AtomicBool>,
}

impl Web {
    /// Answers as `judge` says; what passes goes to `relay`.
    pub fn start(
        relay: Option<SocketAddr>,
        judge: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, stopped) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (noted, stop, judge): (_, _, Arc<Judge>) = (requests.clone(), stopped.clone(), Arc::new(judge));
        let began = Instant::now();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let (judge, noted) = (judge.clone(), noted.clone());
                let Ok(client) = client else { continue };
                std::thread::spawn(move || serve(client, relay, &*judge, &noted, began));
            }
        });
        Self { address, requests, stopped }
    }

    /// Where devices find it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What was asked so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // The listener looks when somebody comes.
        _ = TcpStream::connect(self.address);
    }
}

/// Serves the requests of a connection, one after the other.
fn serve(
    mut client: TcpStream,
    relay: Option<SocketAddr>,
    judge: &Judge,
    noted: &Mutex<Vec<Request>>,
    began: Instant,
) -> Option<()> {
    loop {
        let (head, body) = read(&mut client)?;
        let text = String::from_utf8_lossy(&head).to_lowercase();
        let method = text.split(' ').next()?.to_uppercase();
        let request = Request { method, head: text, body: body.len(), at: began.elapsed() };
        noted.lock().unwrap().push(request.clone());
        match judge(&request) {
            Answer::Say(status, headers, body) => {
                let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
                let length = body.len();
                let answer = format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\n\r\n{body}");
                client.write_all(answer.as_bytes()).ok()?;
            }
            Answer::Silence => {
                _ = client.read(&mut [0]);
                return None;
            }
            Answer::Pass => return pass(client, relay?, &head, &body, request.is_upgrade()),
        }
    }
}

/// The head of a request with its last empty line, and the body.
fn read(client: &mut TcpStream) -> Option<(Vec<u8>, Vec<u8>)> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&head).to_lowercase();
    let length = text.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    client.read_exact(&mut body).ok()?;
    Some((head, body))
}

/// Hands a request to the relay and its answer back. A connection that stays is passed through from then on.
fn pass(mut client: TcpStream, relay: SocketAddr, head: &[u8], body: &[u8], stays: bool) -> Option<()> {
    let mut server = TcpStream::connect(relay).ok()?;
    let end = head.len() - 2;
    server.write_all(&head[..end]).ok()?;
    if !stays {
        server.write_all(b"connection: close\r\n").ok()?;
    }
    server.write_all(b"\r\n").ok()?;
    server.write_all(body).ok()?;
    let (mut up_from, mut up_to) = (client.try_clone().ok()?, server.try_clone().ok()?);
    if stays {
        std::thread::spawn(move || {
            _ = std::io::copy(&mut up_from, &mut up_to);
            _ = up_to.shutdown(Shutdown::Both);
        });
    }
    _ = std::io::copy(&mut server, &mut client);
    _ = client.shutdown(Shutdown::Both);
    None
}
