//! Servers that answer as none should, each by a rule of its own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What a server does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Takes the connection and says nothing.
    Silent,
    /// Closes it at once.
    Closing,
    /// Answers with bytes that are no HTTP.
    Garbage,
    /// Answers with headers that do not end.
    EndlessHeaders,
    /// Answers with a body that does not end.
    EndlessBody,
    /// Promises more than it sends, and closes.
    CutShort,
    /// Sends one byte of its answer each 100 ms.
    Dripping,
    /// Redirects to itself.
    Redirecting,
}

impl Manner {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Silent,
        Self::Closing,
        Self::Garbage,
        Self::EndlessHeaders,
        Self::EndlessBody,
        Self::CutShort,
        Self::Dripping,
        Self::Redirecting,
    ];
}

/// A server on a port of its own that is good as long as a file is not there, and hostile while it is.
#[derive(Debug)]
pub struct Hostile {
    address: SocketAddr,
    over: Arc<AtomicBool>,
}

impl Hostile {
    /// Starts one.
    ///
    /// # Panics
    /// No port is free.
    pub fn while_there(flag: PathBuf, manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let over = Arc::new(AtomicBool::new(false));
        let end = over.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                let (flag, end) = (flag.clone(), end.clone());
                // A client that goes away ends the answer to it.
                std::thread::spawn(move || drop(answer(stream, address, manner, &flag, &end)));
            }
        });
        Self { address, over }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for connections.
        drop(TcpStream::connect(self.address));
    }
}

fn answer(
    mut stream: TcpStream,
    address: SocketAddr,
    manner: Manner,
    flag: &Path,
    over: &AtomicBool,
) -> std::io::Result<()> {
    if !flag.exists() {
        let _ = stream.read(&mut [0; 4096])?;
        return stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
    }
    match manner {
        Manner::Closing => return Ok(()),
        Manner::Silent => {}
        _ => drop(stream.read(&mut [0; 4096])?),
    }
    let head = b"HTTP/1.1 200 OK\r\n";
    match manner {
        Manner::Closing | Manner::Silent => {}
        Manner::Garbage => stream.write_all(&[0xff, 0, 0x1b, b'[', b'2', b'J', b'\n'].repeat(1000))?,
        Manner::Redirecting => {
            let text = format!("HTTP/1.1 302 Found\r\nLocation: http://{address}/\r\nContent-Length: 0\r\n\r\n");
            return stream.write_all(text.as_bytes());
        }
        Manner::CutShort => return stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nok"),
        Manner::EndlessHeaders => {
            stream.write_all(head)?;
            while !over.load(Ordering::SeqCst) {
                stream.write_all(&b"X-Filler: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n".repeat(100))?;
            }
        }
        Manner::EndlessBody => {
            stream.write_all(head)?;
            stream.write_all(b"\r\n")?;
            while !over.load(Ordering::SeqCst) {
                stream.write_all(&[b'x'; 64 << 10])?;
            }
        }
        Manner::Dripping => {
            for byte in head {
                stream.write_all(&[*byte])?;
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
    while !over.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
