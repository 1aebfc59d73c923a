//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use martlet_protocol::rest;

/// martlet-chat: an end-to-end-encrypted messenger for the terminal.
///
/// One folder (--home) is one device. Its keys and messages are encrypted there under a passphrase.
#[derive(Parser)]
#[command(name = "martlet-chat", version, after_long_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    pub place: Place,
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  martlet-chat demo                                       see all of it happen, from nothing
  martlet-chat --server http://127.0.0.1:8080 register alice
  martlet-chat new-direct bob                             prints the conversation's id
  martlet-chat send 4Kd hello                             the first letters of an id are enough
  martlet-chat listen                                     read what came, and stay
  martlet-chat --home ./phone --server http://127.0.0.1:8080 link
                                                          on a further device: shows a code
  martlet-chat accept martlet-link-1.…                    on the first device: lets it in

The passphrase and the account's password are asked for, or taken from MARTLET_PASSPHRASE and MARTLET_PASSWORD.";

/// Which device, and where its server is.
#[derive(Args)]
pub struct Place {
    /// The device's folder.
    #[arg(long, global = true, value_name = "FOLDER", env = "MARTLET_HOME")]
    pub home: Option<PathBuf>,
    /// The server's address; needed once, by register and link.
    #[arg(long, global = true, value_name = "URL", env = "MARTLET_SERVER")]
    pub server: Option<String>,
}

#[derive(Subcommand)]
pub enum Command {
    /// Make an account, with this as its first device.
    Register {
        /// 3 to 32 of a-z 0-9 . _ -
        username: String,
        /// What the account's other devices see this one as.
        #[arg(long, default_value = "terminal")]
        name: String,
    },
    /// Join an account as a further device: shows a code for `accept`.
    Link {
        /// What the account's other devices see this one as.
        #[arg(long, default_value = "terminal")]
        name: String,
    },
    /// Let a new device into this account, by the code that it shows.
    Accept {
        /// martlet-link-1.…
        code: String,
        /// Don't ask. For scripts that know what they let in.
        #[arg(long)]
        yes: bool,
    },
    /// Get a new token with the account's password, after sign-out or suspension.
    SignIn,
    /// List the account's devices.
    Devices,
    /// Give a device another name.
    Rename {
        /// First letters of the device's id.
        device: String,
        /// Its new name.
        name: String,
    },
    /// Remove devices from the account; they get nothing more.
    Revoke {
        /// First letters of the devices' ids.
        #[arg(required = true)]
        devices: Vec<String>,
    },
    /// Look an account up and pin it.
    Lookup {
        /// The account's name.
        username: String,
    },
    /// Show the 60 digits to compare with somebody over another channel.
    SafetyNumber {
        /// The account's name.
        username: String,
    },
    /// List conversations.
    Conversations,
    /// Start a conversation with one other account, or find it.
    NewDirect {
        /// The other account's name.
        username: String,
    },
    /// Start a group.
    NewGroup {
        /// The first members' names.
        #[arg(required = true)]
        usernames: Vec<String>,
        /// Only members can read it.
        #[arg(long)]
        title: Option<String>,
    },
    /// Add an account to a group.
    Add {
        /// First letters of the conversation's id.
        conversation: String,
        /// The account's name.
        username: String,
        /// What it may do.
        #[arg(long, value_enum, default_value_t = RoleArgument::Member)]
        role: RoleArgument,
    },
    /// Remove an account from a group.
    Remove {
        /// First letters of the conversation's id.
        conversation: String,
        /// The account's name.
        username: String,
    },
    /// Give a member of a group another role.
    Role {
        /// First letters of the conversation's id.
        conversation: String,
        /// The account's name.
        username: String,
        /// What it may do from now on.
        #[arg(value_enum)]
        role: RoleArgument,
    },
    /// Leave a group.
    Leave {
        /// First letters of the conversation's id.
        conversation: String,
    },
    /// Send a text, and wait until the server has it.
    Send {
        /// First letters of the conversation's id.
        conversation: String,
        /// What to say.
        #[arg(required = true)]
        text: Vec<String>,
        /// Let mailboxes forget it after so many seconds.
        #[arg(long, default_value_t = 0, value_name = "SECONDS")]
        lifetime: u32,
    },
    /// Print what came since the last time, then what comes. Ctrl-C ends it.
    Listen {
        /// Everything from the beginning.
        #[arg(long)]
        all: bool,
        /// End when the backlog is read.
        #[arg(long)]
        once: bool,
        /// Tell senders that their messages were read.
        #[arg(long)]
        receipts: bool,
    },
    /// Two accounts with three and two devices on a node of their own, each step shown and checked.
    ///
    /// With --home, everything is kept there, and an interrupted demo goes on there; with --server, that server is used.
    Demo(DemoOptions),
}

/// How the demo runs.
#[derive(Args)]
pub struct DemoOptions {
    /// Texts that every device sends in each part.
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub messages: usize,
    /// Keep the node's log on the screen.
    #[arg(long)]
    pub verbose: bool,
}

/// A role on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum RoleArgument {
    /// Sends, reads, leaves.
    Member,
    /// Also adds and removes members.
    Admin,
    /// Also gives roles.
    Owner,
}

impl From<RoleArgument> for rest::Role {
    fn from(role: RoleArgument) -> Self {
        match role {
            RoleArgument::Member => Self::Member,
            RoleArgument::Admin => Self::Admin,
            RoleArgument::Owner => Self::Owner,
        }
    }
}
