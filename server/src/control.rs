//! The operator's line to a running server: a socket in the data directory, which only its owner can enter.
//!
//! One JSON object a line each way. It must not know HTTP.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

/// The socket's name in the data directory.
const NAME: &str = "control.sock";
/// Longest line, in bytes.
const LINE_BYTES_MAX: u64 = 64 * 1024;
/// Pause after the system refused to accept.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
/// How long either side waits for the other.
const WAIT: Duration = Duration::from_secs(5);

/// What the operator can ask for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Say something to everyone.
    Announce { text: String },
    /// Make a link by which somebody becomes an owner.
    OwnerLink,
    /// Say whether all is well.
    Health,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Done {
        /// What was made, for the operator.
        text: Option<String>,
    },
    Refused {
        reason: String,
    },
}

/// The socket, taken away again at the end.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Control {
    /// Opens the socket. The caller holds the directory's lock, so that one left behind is nobody's.
    ///
    /// # Errors
    /// The system's.
    pub fn open(data: &Path) -> io::Result<Self> {
        let path = data.join(NAME);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        Ok(Self { listener: UnixListener::bind(&path)?, path })
    }

    /// Has orders carried out, one connection at a time. What comes back is for the operator: a text, or why
    /// it was not done.
    pub async fn run(self, carry_out: impl AsyncFn(Order) -> Result<Option<String>, String>) {
        loop {
            match self.listener.accept().await {
                Ok((socket, _)) => {
                    let served = timeout(WAIT, serve(socket, &carry_out)).await;
                    if let Ok(Err(error)) = served {
                        tracing::debug!(%error, "a control connection failed");
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the control socket cannot accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn serve(
    socket: UnixStream,
    carry_out: &impl AsyncFn(Order) -> Result<Option<String>, String>,
) -> io::Result<()> {
    let (reader, mut writer) = socket.into_split();
    let mut line = String::new();
    BufReader::new(reader.take(LINE_BYTES_MAX)).read_line(&mut line).await?;
    let done = match serde_json::from_str(&line) {
        Ok(order) => carry_out(order).await,
        Err(error) => Err(error.to_string()),
    };
    let answer = match done {
        Ok(text) => Answer::Done { text },
        Err(reason) => Answer::Refused { reason },
    };
    let mut answer = serde_json::to_vec(&answer)?;
    answer.push(b'\n');
    writer.write_all(&answer).await
}

/// Gives an order to the server that runs on a data directory; what it says to that.
///
/// # Errors
/// A sentence for the operator.
pub async fn order(data: &Path, order: &Order) -> Result<Option<String>, String> {
    let talk = async {
        let mut socket = UnixStream::connect(data.join(NAME)).await?;
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        socket.write_all(&line).await?;
        let mut answer = String::new();
        BufReader::new(socket.take(LINE_BYTES_MAX)).read_line(&mut answer).await?;
        io::Result::Ok(serde_json::from_str::<Answer>(&answer)?)
    };
    match timeout(WAIT, talk).await {
        Ok(Ok(Answer::Done { text })) => Ok(text),
        Ok(Ok(Answer::Refused { reason })) => Err(format!("the server refused: {reason}")),
        Ok(Err(error)) => Err(format!("no server runs on {}: {error}", data.display())),
        Err(_) => Err(format!("the server on {} does not answer", data.display())),
    }
}
