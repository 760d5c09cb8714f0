//! What Magpie is compared with: the broadcast chat of warp's own documentation (`websockets_chat` in its
//! examples), with an unbounded channel and a forwarding task for each connection.
//!
//! Two differences: a message goes out as it came, to its sender too, so that it can be timed; and sockets
//! get TCP_NODELAY, which warp does not set, since without it Nagle's algorithm alone decides the latency.
//! Nothing is stored and nothing acknowledged. It must not be tuned further.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpListener;
use tokio::sync::{RwLock, mpsc};
use warp::Filter;
use warp::ws::{Message, WebSocket};

static NEXT_USER: AtomicUsize = AtomicUsize::new(1);

type Users = Arc<RwLock<HashMap<usize, mpsc::UnboundedSender<Message>>>>;

/// Serves until the process is killed.
pub fn serve(listen: SocketAddr) -> Result<()> {
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let users = Users::default();
        let users = warp::any().map(move || users.clone());
        let chat = warp::path("ws")
            .and(warp::ws())
            .and(users)
            .map(|ws: warp::ws::Ws, users| ws.on_upgrade(move |socket| connected(socket, users)));
        let listener = TcpListener::bind(listen).await.context("binding")?;
        // On Linux accepted sockets inherit it.
        socket2::SockRef::from(&listener).set_tcp_nodelay(true)?;
        eprintln!("listening on http://{}", listener.local_addr()?);
        warp::serve(chat).incoming(listener).run().await;
        Ok(())
    })
}

async fn connected(ws: WebSocket, users: Users) {
    let id = NEXT_USER.fetch_add(1, Ordering::Relaxed);
    let (mut user_tx, mut user_rx) = ws.split();
    let (tx, mut rx) = mpsc::unbounded_channel();
    tokio::task::spawn(async move {
        while let Some(message) = rx.recv().await {
            if user_tx.send(message).await.is_err() {
                break;
            }
        }
    });
    users.write().await.insert(id, tx);
    while let Some(Ok(message)) = user_rx.next().await {
        let Ok(text) = message.to_str() else { continue };
        for tx in users.read().await.values() {
            let _ = tx.send(Message::text(text));
        }
    }
    users.write().await.remove(&id);
}
