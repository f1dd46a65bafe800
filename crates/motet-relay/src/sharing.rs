//! What accounts ask of the spaces that they share: [`SharingRequest`], [`SharingAnswer`].

use std::time::Duration;

use motet_proto::SpaceId;

/// What an account may do with a space that it shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Role {
    /// Read it.
    Reader,
    /// Read it, and write to it.
    Writer,
    /// Everything: also have documents erased from it. Its log counts for this account.
    Owner,
}

/// A space that an account may read, for its devices.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OfferedSpace {
    /// Its id.
    pub id: SpaceId,
    /// What its owner calls it.
    pub name: String,
    /// The account that it belongs to.
    pub owner: String,
    /// What this account may do with it.
    pub role: Role,
}

/// What a code lets an account join.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Invite {
    /// The space.
    pub space: SpaceId,
    /// What its owner calls it.
    pub name: String,
    /// Its owner.
    pub owner: String,
    /// What whoever joins may do.
    pub role: Role,
    /// Until when it is good, in milliseconds since 1970.
    pub expires_at: i64,
    /// Any number of accounts may join with it, and not just one.
    pub is_reusable: bool,
}

/// What an account asks of the spaces that it shares.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SharingRequest {
    /// Make one of this name.
    Create {
        /// What people call it.
        name: String,
    },
    /// Give one another name; its owner may.
    Rename {
        /// Which.
        space: SpaceId,
        /// What people call it from now on.
        name: String,
    },
    /// End the sharing of one for everybody; its owner may.
    Delete {
        /// Which.
        space: SpaceId,
    },
    /// Say who shares one; its members may ask.
    Members {
        /// Which.
        space: SpaceId,
    },
    /// Change what a member may do; its owner may. Who becomes owner takes it over from the one that asks, who goes on as a writer.
    SetRole {
        /// Which.
        space: SpaceId,
        /// The member.
        account: String,
        /// What it may do from now on.
        role: Role,
    },
    /// Take it from a member; its owner may.
    Remove {
        /// Which.
        space: SpaceId,
        /// The member.
        account: String,
    },
    /// Leave it; its members may, and its owner once another one has it.
    Leave {
        /// Which.
        space: SpaceId,
    },
    /// Make a code with which others join; its owner may.
    Invite {
        /// Which.
        space: SpaceId,
        /// What whoever joins may do.
        role: Role,
        /// How long it is good; [`INVITE_LIFETIME`](crate::limits::INVITE_LIFETIME) if nothing is said.
        expires_after: Option<Duration>,
        /// Any number of accounts may join with it, and not just one.
        is_reusable: bool,
    },
    /// Make all codes worthless; its owner may.
    RevokeInvites {
        /// Which.
        space: SpaceId,
    },
    /// Say what a code is for.
    ShowInvite {
        /// The code.
        code: String,
    },
    /// Join the space that a code is for.
    Join {
        /// The code.
        code: String,
    },
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SharingAnswer {
    /// The space, as it is for the account now.
    Space(OfferedSpace),
    /// Its members, the owner first and the others by name.
    Members(Vec<(String, Role)>),
    /// A code, which is shown this once.
    Code {
        /// The code.
        code: String,
        /// Until when it is good, in milliseconds since 1970.
        expires_at: i64,
    },
    /// What a code is for.
    Invite(Invite),
    /// It is done.
    Done,
}

/// Why it is not done. Everything stays as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SharingError {
    /// The relay keeps no accounts that could share spaces.
    #[error("accounts share no spaces on this relay")]
    NotOffered,
    /// There is none, or none that this account may know of.
    #[error("there is no such space, or this account is no member of it")]
    NoSpace,
    /// The code is of no use.
    #[error("the code is not valid any more, or never was")]
    NoInvite,
    /// A member asks for what only the owner may.
    #[error("only the owner of the space may do that")]
    NotOwner,
    /// What was asked for makes no sense.
    #[error("{0}")]
    Bad(String),
    /// It cannot be, as other things are.
    #[error("{0}")]
    Conflict(String),
    /// It cannot be done now.
    #[error("it cannot be done now; try again later")]
    Unavailable,
}

impl Role {
    /// As the wire and the command line have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Writer => "writer",
            Self::Owner => "owner",
        }
    }
}
