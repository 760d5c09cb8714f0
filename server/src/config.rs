//! Every address, path and limit that an operator can set, as flags and as `MAGPIE_…` variables.
//!
//! A flag wins over its variable. Each limit is named once, here; 0 is off where it says so.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use shared::model::{ANNOUNCEMENT_CHARS_MAX, BODY_CHARS_MAX};
use shared::network::Network;
use shared::protocol::FRAME_BYTES_MAX;

use crate::accounts::Registration;
use crate::addresses::network;
use crate::engine::EngineConfig;
use crate::hub::HubConfig;
use crate::tls::Files;

/// Longest message that can be allowed, in bytes. A peer can make the server hold as much for it.
const FRAME_BYTES_CEILING: u64 = 64 * 1024 * 1024;

/// Team chat that anyone can run.
#[derive(Debug, Parser)]
#[command(name = "magpie", version, about, args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub config: Config,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Say something to everyone who is connected to the running server.
    Announce {
        /// What to say.
        #[arg(value_parser = announcement)]
        text: String,
        /// The data directory of the running server.
        #[arg(long, env = "MAGPIE_DATA", default_value = "data", value_name = "DIR")]
        data: PathBuf,
    },
    /// Say whether the running server is ready: what /readyz says, and a failure if it is not.
    Health {
        /// The data directory of the running server.
        #[arg(long, env = "MAGPIE_DATA", default_value = "data", value_name = "DIR")]
        data: PathBuf,
    },
    /// Move all data of a directory, on which no server runs, to an empty PostgreSQL database. It may be cut short
    /// and called again; no server starts on a database that does not have all of it.
    Migrate {
        /// The directory. It is only read; one of an older Magpie is brought up to date first.
        #[arg(long, env = "MAGPIE_DATA", default_value = "data", value_name = "DIR")]
        from: PathBuf,
        /// The database, as in --database.
        #[arg(long, env = "MAGPIE_DATABASE", hide_env_values = true, value_name = "URL")]
        to: SecretUrl,
    },
    /// Print a link by which somebody with an account becomes an owner of the running server: for the first
    /// one, and for an owner who has lost their password. It works once, and an earlier one no more.
    OwnerLink {
        /// The data directory of the running server.
        #[arg(long, env = "MAGPIE_DATA", default_value = "data", value_name = "DIR")]
        data: PathBuf,
    },
}

/// What log lines look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogForm {
    /// Text on a terminal, else JSON.
    Auto,
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnOff {
    On,
    Off,
}

/// How to run a server.
#[derive(Clone, Debug, Args)]
pub struct Config {
    /// Address to listen on; may be given several times. Port 0 takes a free one.
    #[arg(
        long,
        env = "MAGPIE_LISTEN",
        default_value = "127.0.0.1:8080",
        value_delimiter = ',',
        value_name = "ADDRESS"
    )]
    pub listen: Vec<SocketAddr>,

    /// Directory for all data. It is made if it does not exist.
    #[arg(long, env = "MAGPIE_DATA", default_value = "data", value_name = "DIR")]
    pub data: PathBuf,

    /// PostgreSQL database that any number of nodes share, instead of one of our own in the data directory, as
    /// postgres://USER:PASSWORD@HOST/NAME. Others on this machine can see a flag; not so the variable.
    #[arg(long, env = "MAGPIE_DATABASE", hide_env_values = true, value_name = "URL")]
    pub database: Option<SecretUrl>,

    /// Redis server by way of which several processes hear each other, as redis://HOST:PORT, with USER:PASSWORD@
    /// before the host where it wants that. Others on this machine can see a flag; not so the variable.
    #[arg(long, env = "MAGPIE_BROKER", hide_env_values = true, value_name = "URL")]
    pub broker: Option<SecretUrl>,

    /// Threads that serve connections; 0 is one for every two cores.
    #[arg(long, env = "MAGPIE_WORKERS", default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u16).range(..=256))]
    pub workers: u16,

    /// Certificate, and those that lead to its authority, as PEM: all addresses then speak TLS (https). Read
    /// again when it changes and at SIGHUP.
    #[arg(long, env = "MAGPIE_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,

    /// The certificate's private key, as PEM.
    #[arg(long, env = "MAGPIE_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// Speak TLS with a certificate of our own making, for trying out: browsers will warn. It is kept in the
    /// data directory.
    #[arg(long, env = "MAGPIE_TLS_SELF_SIGNED", value_parser = switch())]
    pub tls_self_signed: bool,

    /// Origin whose pages may connect besides the server's own, such as https://chat.example.org; may be
    /// given several times.
    #[arg(long, env = "MAGPIE_ALLOW_ORIGIN", value_delimiter = ',', value_name = "ORIGIN")]
    pub allow_origin: Vec<String>,

    /// Who may make an account: anybody, only who was invited, or nobody.
    #[arg(long, env = "MAGPIE_REGISTRATION", value_enum, default_value_t = Registration::Open)]
    pub registration: Registration,

    /// Whether people may talk without an account.
    #[arg(long, env = "MAGPIE_GUESTS", value_enum, default_value_t = OnOff::On, value_name = "on|off", hide_possible_values = true)]
    pub guests: OnOff,

    /// Days after which somebody who signed in must do so again.
    #[arg(
        long,
        env = "MAGPIE_SESSION_DAYS",
        default_value_t = 90,
        value_name = "DAYS",
        value_parser = clap::value_parser!(u32).range(1..=3_650)
    )]
    pub session_days: u32,

    /// Proxy that is believed when it says whom it speaks for (X-Forwarded-For, X-Forwarded-Proto), as an
    /// address or a network such as 10.0.0.0/8; may be given several times.
    #[arg(
        long,
        env = "MAGPIE_TRUSTED_PROXY",
        value_delimiter = ',',
        value_name = "NETWORK",
        value_parser = network
    )]
    pub trusted_proxy: Vec<Network>,

    /// Let webhooks post messages to private addresses, such as those of this machine and its neighbours.
    #[arg(long, env = "MAGPIE_ALLOW_PRIVATE_HOOKS", value_parser = switch())]
    pub allow_private_hooks: bool,

    /// What log lines look like.
    #[arg(long, env = "MAGPIE_LOG_FORM", value_enum, default_value_t = LogForm::Auto)]
    pub log_form: LogForm,

    /// Messages a second of one user, with a burst of three seconds' worth; 0 is off.
    #[arg(long, env = "MAGPIE_MESSAGE_RATE", default_value_t = 10, value_name = "N")]
    pub message_rate: u32,

    /// Requests of any kind a second of one user, with a burst of three seconds' worth; 0 is off.
    #[arg(long, env = "MAGPIE_REQUEST_RATE", default_value_t = 50, value_name = "N")]
    pub request_rate: u32,

    /// Rooms a minute that one user makes, joins or opens; 0 is off.
    #[arg(long, env = "MAGPIE_ENTRY_RATE", default_value_t = 60, value_name = "N")]
    pub entry_rate: u32,

    /// Acts a minute of one user: what is done to rooms, to people, to the server; 0 is off.
    #[arg(long, env = "MAGPIE_ACT_RATE", default_value_t = 60, value_name = "N")]
    pub act_rate: u32,

    /// Lists a minute that one user looks into; 0 is off.
    #[arg(long, env = "MAGPIE_LIST_RATE", default_value_t = 60, value_name = "N")]
    pub list_rate: u32,

    /// Connections of one user to a worker; 0 is off.
    #[arg(long, env = "MAGPIE_MAX_CONNECTIONS_PER_USER", default_value_t = 50, value_name = "N")]
    pub max_connections_per_user: usize,

    /// Rooms that one user can be in; 0 is off.
    #[arg(long, env = "MAGPIE_MAX_ROOMS_PER_USER", default_value_t = 200, value_name = "N")]
    pub max_rooms_per_user: usize,

    /// Characters of one message; 0 is off, and the frame's limit remains.
    #[arg(long, env = "MAGPIE_MAX_MESSAGE_CHARS", default_value_t = BODY_CHARS_MAX, value_name = "N")]
    pub max_message_chars: usize,

    /// Bytes of one WebSocket message, before anything in it is read.
    #[arg(
        long,
        env = "MAGPIE_MAX_FRAME_BYTES",
        default_value_t = FRAME_BYTES_MAX as u64,
        value_name = "BYTES",
        value_parser = clap::value_parser!(u64).range(1_024..=FRAME_BYTES_CEILING)
    )]
    pub max_frame_bytes: u64,

    /// Connections in all; 0 is off.
    #[arg(long, env = "MAGPIE_MAX_CONNECTIONS", default_value_t = 50_000, value_name = "N")]
    pub max_connections: usize,

    /// Connections from one address (for IPv6: one /64); 0 is off. Behind a proxy all come from one.
    #[arg(long, env = "MAGPIE_MAX_CONNECTIONS_PER_ADDRESS", default_value_t = 256, value_name = "N")]
    pub max_connections_per_address: usize,

    /// Bytes queued for a connection that reads too slowly, before it is closed; 0 is off.
    #[arg(long, env = "MAGPIE_SEND_QUEUE_BYTES", default_value_t = 1024 * 1024, value_name = "BYTES")]
    pub send_queue_bytes: usize,

    /// Longest message that /ws/echo sends back, in bytes. A conformance test needs 16 MiB.
    #[arg(
        long,
        env = "MAGPIE_MAX_ECHO_BYTES",
        default_value_t = FRAME_BYTES_MAX as u64,
        value_name = "BYTES",
        value_parser = clap::value_parser!(u64).range(1_024..=FRAME_BYTES_CEILING)
    )]
    pub max_echo_bytes: u64,

    /// Seconds until a new connection must have sent its first request, and until an idle one is closed;
    /// 0 is off.
    #[arg(long, env = "MAGPIE_IDLE_TIMEOUT", default_value_t = 30, value_name = "SECONDS")]
    pub idle_timeout: u64,

    /// Seconds for the head of a request, the handshake of a WebSocket included; 0 is off.
    #[arg(long, env = "MAGPIE_HEADER_TIMEOUT", default_value_t = 10, value_name = "SECONDS")]
    pub header_timeout: u64,

    /// Seconds of silence after which a connection is pinged, and again until it is given up.
    #[arg(
        long,
        env = "MAGPIE_PING_INTERVAL",
        default_value_t = 30,
        value_name = "SECONDS",
        value_parser = clap::value_parser!(u64).range(1..=3_600)
    )]
    pub ping_interval: u64,

    /// Seconds for which a server that is told to end goes on as before but says that it is not ready (/readyz):
    /// time for a balancer to send newcomers elsewhere.
    #[arg(
        long,
        env = "MAGPIE_DRAIN_DELAY",
        default_value_t = 0,
        value_name = "SECONDS",
        value_parser = clap::value_parser!(u64).range(..=3_600)
    )]
    pub drain_delay: u64,

    /// Address on which Prometheus may read metrics (/metrics). It is for the operator: nobody is asked who they
    /// are there.
    #[arg(long, env = "MAGPIE_METRICS_LISTEN", value_name = "ADDRESS")]
    pub metrics_listen: Option<SocketAddr>,

    /// Do not compress messages on the wire.
    #[arg(long, env = "MAGPIE_NO_DEFLATE", value_parser = switch())]
    pub no_deflate: bool,

    /// Do not serve the page /lab and what belongs to it.
    #[arg(long, env = "MAGPIE_NO_LAB", value_parser = switch())]
    pub no_lab: bool,
}

/// An address that may hold a password: it is checked where it is used, and never shown.
#[derive(Clone)]
pub struct SecretUrl(String);

impl SecretUrl {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for SecretUrl {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretUrl(…)")
    }
}

/// Where the certificate comes from.
#[derive(Clone, Debug)]
pub enum Certificate {
    Files(Files),
    SelfSigned,
}

impl Config {
    /// Threads that serve. The other cores are for the store, the kernel and the rest of the machine.
    pub fn workers(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2)),
            workers => workers.into(),
        }
    }

    /// Whether to speak TLS, and as whom.
    ///
    /// # Errors
    /// The flags contradict each other: a sentence for the operator.
    pub fn certificate(&self) -> Result<Option<Certificate>, &'static str> {
        match (&self.tls_cert, &self.tls_key, self.tls_self_signed) {
            (None, None, false) => Ok(None),
            (None, None, true) => Ok(Some(Certificate::SelfSigned)),
            (Some(cert), Some(key), false) => {
                Ok(Some(Certificate::Files(Files { cert: cert.clone(), key: key.clone() })))
            }
            (_, _, true) => {
                Err("--tls-self-signed makes its own certificate: leave out --tls-cert and --tls-key")
            }
            (Some(_), None, false) => Err("--tls-cert needs --tls-key"),
            (None, Some(_), false) => Err("--tls-key needs --tls-cert"),
        }
    }

    /// What the engine needs to know.
    pub fn engine(&self) -> EngineConfig {
        EngineConfig {
            hub: HubConfig {
                message_rate: self.message_rate,
                request_rate: self.request_rate,
                entry_rate: self.entry_rate,
                act_rate: self.act_rate,
                list_rate: self.list_rate,
                connections_per_user: self.max_connections_per_user,
                rooms_per_user: self.max_rooms_per_user,
                message_chars: self.max_message_chars,
                frame_bytes: self.max_frame_bytes as usize,
                ..HubConfig::default()
            },
            send_queue_bytes: self.send_queue_bytes,
            ping_interval: Duration::from_secs(self.ping_interval),
        }
    }
}

/// A switch's variable: 1, true, yes, on; or 0, false, no, off.
fn switch() -> clap::builder::BoolishValueParser {
    clap::builder::BoolishValueParser::new()
}

/// What may be announced.
///
/// # Errors
/// A sentence for the operator.
pub fn announcement(text: &str) -> Result<String, String> {
    let text = text.trim();
    match text.chars().count() {
        0 => Err("an announcement needs some text".into()),
        count if count > ANNOUNCEMENT_CHARS_MAX => {
            Err(format!("an announcement has at most {ANNOUNCEMENT_CHARS_MAX} characters"))
        }
        _ => Ok(text.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn flags_are_well_formed_and_have_their_variables() {
        let command = Arguments::command();
        command.clone().debug_assert();
        for arg in command.get_arguments() {
            let Some(long) = arg.get_long().filter(|long| !["help", "version"].contains(long)) else {
                continue;
            };
            let variable = format!("MAGPIE_{}", long.to_uppercase().replace('-', "_"));
            assert_eq!(arg.get_env().and_then(|env| env.to_str()), Some(variable.as_str()));
        }
    }

    #[test]
    fn a_switch_can_be_set_as_people_write_it() {
        use clap::builder::TypedValueParser;
        for (text, on) in [("1", true), ("true", true), ("yes", true), ("0", false), ("off", false)] {
            let value = switch().parse_ref(&Arguments::command(), None, text.as_ref());
            assert_eq!(value.ok(), Some(on), "{text}");
        }
    }

    #[test]
    fn the_server_and_its_commands_are_told_apart() {
        let server =
            Arguments::try_parse_from(["magpie", "--listen", "[::1]:0", "--message-rate", "0"]).unwrap();
        assert!(server.command.is_none() && server.config.message_rate == 0);
        let announce = Arguments::try_parse_from(["magpie", "announce", "tea is ready"]).unwrap();
        assert!(matches!(announce.command, Some(Command::Announce { text, .. }) if text == "tea is ready"));
        assert!(Arguments::try_parse_from(["magpie", "announce", " "]).is_err());
        let link = Arguments::try_parse_from(["magpie", "owner-link", "--data", "d"]).unwrap();
        assert!(matches!(link.command, Some(Command::OwnerLink { data }) if data.as_os_str() == "d"));
        assert!(Arguments::try_parse_from(["magpie", "--ping-interval", "0"]).is_err());
    }

    #[test]
    fn who_may_come_in_can_be_set() {
        let config =
            |flags: &str| Arguments::try_parse_from(flags.split(' ')).map(|arguments| arguments.config);
        let usual = config("magpie").unwrap();
        assert_eq!(
            (usual.registration, usual.guests, usual.session_days),
            (Registration::Open, OnOff::On, 90)
        );
        let strict =
            config("magpie --registration invite --guests off --trusted-proxy 10.0.0.0/8,::1").unwrap();
        assert_eq!((strict.registration, strict.guests), (Registration::Invite, OnOff::Off));
        assert_eq!(strict.trusted_proxy.len(), 2);
        for bad in ["--registration maybe", "--guests 1", "--session-days 0", "--trusted-proxy proxy.example"]
        {
            assert!(config(&format!("magpie {bad}")).is_err(), "{bad}");
        }
    }

    #[test]
    fn passwords_in_addresses_are_not_shown() {
        let flags = [
            "magpie",
            "--broker",
            "redis://:hush@localhost",
            "--database",
            "postgres://me:hush@localhost/magpie",
        ];
        let arguments = Arguments::try_parse_from(flags).unwrap();
        assert_eq!(arguments.config.broker.as_ref().map(SecretUrl::as_str), Some(flags[2]));
        assert_eq!(arguments.config.database.as_ref().map(SecretUrl::as_str), Some(flags[4]));
        assert!(!format!("{arguments:?}").contains("hush"));
        let command = Arguments::command();
        let secret = |arg: &&clap::Arg| ["broker", "database"].contains(&arg.get_long().unwrap_or_default());
        let shown = command.get_arguments().filter(secret).filter(|arg| !arg.is_hide_env_values_set());
        assert_eq!(shown.count(), 0);
    }

    #[test]
    fn a_certificate_needs_its_key_and_nothing_else() {
        let certificate = |flags: &str| {
            Arguments::try_parse_from(flags.split(' ')).unwrap().config.certificate().map_err(str::len)
        };
        assert!(matches!(certificate("magpie --tls-key k --tls-cert c"), Ok(Some(Certificate::Files(_)))));
        assert!(matches!(certificate("magpie --tls-self-signed"), Ok(Some(Certificate::SelfSigned))));
        for bad in ["--tls-key k", "--tls-cert c", "--tls-self-signed --tls-cert c --tls-key k"] {
            assert!(certificate(&format!("magpie {bad}")).is_err(), "{bad}");
        }
    }
}
