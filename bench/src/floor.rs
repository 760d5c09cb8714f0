//! The floor: what it costs to give one buffer to N sockets with a bare `send()` in a loop, and nothing else.
//!
//! The first connection speaks: each frame that it sends is written, as it is, to all the others.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;

use anyhow::{Context, Result, ensure};

use bench::frames;

/// Serves until the process is killed.
pub fn serve(listen: SocketAddr) -> Result<()> {
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let listener = TcpListener::bind(listen).context("binding")?;
    eprintln!("listening on http://{}", listener.local_addr()?);
    let (mut control, _) = listener.accept()?;
    let (tx, rx) = mpsc::channel();
    std::thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let ready = socket.set_nodelay(true).and_then(|()| socket.set_nonblocking(true));
            if ready.is_err() || tx.send(socket).is_err() {
                return;
            }
        }
    });
    let mut members: Vec<TcpStream> = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut filled = 0;
    loop {
        let count = control.read(&mut buffer[filled..])?;
        if count == 0 {
            return Ok(());
        }
        filled += count;
        members.extend(rx.try_iter());
        let mut used = 0;
        while let Some(frame) = frames::first(&buffer[used..filled]).map_err(anyhow::Error::msg)? {
            let bytes = &buffer[used..used + frame.end];
            for member in &mut members {
                match member.write(bytes) {
                    Ok(written) => ensure!(written == bytes.len(), "a socket took a part of a frame"),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        anyhow::bail!("a socket is full: the load must wait for each message")
                    }
                    Err(error) => return Err(error).context("writing"),
                }
            }
            used += frame.end;
        }
        buffer.copy_within(used..filled, 0);
        filled -= used;
    }
}
