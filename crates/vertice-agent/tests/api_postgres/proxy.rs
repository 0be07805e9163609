//! Stands between an agent and its server, and cuts their conversation at one statement.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::wait_for;

/// What becomes of the last of the statements.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// It does not reach the server, and the connection breaks.
    Before,
    /// It reaches the server, and the connection breaks before the answer.
    Answer,
    /// It does not reach the server, and the connection stands still.
    Hold,
}

/// Connections end when it is dropped.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    server: u16,
    /// Texts of statements that follow each other in one connection.
    statements: &'static [&'static str],
    cut: Cut,
    /// Only the first time.
    done: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    pub(crate) fn start(server: u16, statements: &'static [&'static str], cut: Cut) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (done, open) = (AtomicBool::new(false), Mutex::default());
        let shared = Arc::new(Shared { server, statements, cut, done, open });
        let of_clients = shared.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                let shared = of_clients.clone();
                thread::spawn(move || shared.serve(client.unwrap()));
            }
        });
        Self { port, shared }
    }

    /// Waits until it has cut.
    pub(crate) fn wait(&self) {
        wait_for("the statement", || self.shared.done.load(Ordering::SeqCst).then_some(()));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        for stream in self.shared.open.lock().unwrap().iter() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn serve(&self, client: TcpStream) {
        // A server that is gone is gone for the client, too.
        let Ok(server) = TcpStream::connect(("127.0.0.1", self.server)) else { return };
        let both = [client.try_clone().unwrap(), server.try_clone().unwrap()];
        self.open.lock().unwrap().extend(both);
        let (mut answers, mut to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
        thread::spawn(move || {
            let _ = std::io::copy(&mut answers, &mut to_client);
            let _ = to_client.shutdown(Shutdown::Both);
        });
        self.forward(client, server);
    }

    fn forward(&self, mut client: TcpStream, mut server: TcpStream) {
        let mut buffer = vec![0; 64 * 1024];
        let mut awaited = self.statements;
        while let Ok(read @ 1..) = client.read(&mut buffer) {
            // A statement is short, and psql sends it in one piece.
            let text = String::from_utf8_lossy(&buffer[..read]);
            if awaited.first().is_some_and(|statement| text.contains(statement)) {
                awaited = &awaited[1..];
                if awaited.is_empty() && !self.done.swap(true, Ordering::SeqCst) {
                    return self.cut(&client, server, &buffer[..read]);
                }
            }
            if server.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        let _ = server.shutdown(Shutdown::Both);
    }

    fn cut(&self, client: &TcpStream, mut server: TcpStream, statement: &[u8]) {
        match self.cut {
            Cut::Hold => {}
            Cut::Before => {
                let _ = client.shutdown(Shutdown::Both);
                let _ = server.shutdown(Shutdown::Both);
            }
            Cut::Answer => {
                let _ = client.shutdown(Shutdown::Both);
                server.write_all(statement).unwrap();
            }
        }
    }
}
