//! What devices ask of their own account, done.

use motet_proto::device_key::PublicKey;

use super::audit::{Actor, By};
use super::{Account, Directory, DirectoryError, Members};
use crate::auth::Principal;
use crate::identity::{Identity, IdentityError};
use crate::limits;
use crate::own_account::{AccountAnswer, AccountError, AccountRequest, Overview};
use crate::store::sqlite::Stored;

type Result<T> = std::result::Result<T, AccountError>;

impl Members {
    /// Does what a device asks of its account.
    pub(super) async fn own_account(&self, who: Principal, request: AccountRequest) -> Result<AccountAnswer> {
        let (Some(_), Some(key)) = (who.device, who.token) else { return Err(AccountError::NotOffered) };
        let identity = match &request {
            AccountRequest::LinkIdentity { token } => Some(self.identity(token, &PublicKey(key)).await?),
            _ => None,
        };
        let directory = self.directory();
        let by = By(who.device.map_or(Actor::Account, Actor::Device));
        let done = move || directory.serve_account(&who.account, &request, identity.as_ref(), by);
        tokio::task::spawn_blocking(done).await.unwrap_or(Err(AccountError::Unavailable))
    }

    async fn identity(&self, token: &str, key: &PublicKey) -> Result<Identity> {
        let none = || AccountError::Conflict("this relay accepts nobody's identity tokens".into());
        let verified = self.identities().ok_or_else(none)?.verify(token, key).await;
        verified.map_err(|error| match error {
            IdentityError::Refused(_) => AccountError::Bad(error.to_string()),
            IdentityError::Unavailable(_) => AccountError::Unavailable,
        })
    }
}

impl Directory {
    /// Does what an account asks of itself. An identity token is for the device that shows it, so none can be linked here.
    ///
    /// # Errors
    /// [`AccountError`].
    pub fn own_account(&self, account: &str, request: &AccountRequest) -> Result<AccountAnswer> {
        self.serve_account(account, request, None, By(Actor::Account))
    }

    fn serve_account(
        &self,
        account: &str,
        request: &AccountRequest,
        identity: Option<&Identity>,
        by: By,
    ) -> Result<AccountAnswer> {
        let done = match request {
            AccountRequest::Devices => {
                let mut devices = self.devices(Some(account)).map_err(of_directory)?;
                devices.retain(|device| device.revoked_at.is_none());
                return Ok(AccountAnswer::Devices(devices));
            }
            AccountRequest::Identities => {
                let mut identities = self.identities().map_err(of_directory)?;
                identities.retain(|identity| identity.account.as_deref() == Some(account));
                return Ok(AccountAnswer::Identities(identities));
            }
            AccountRequest::RenameDevice { device, name } => {
                self.rename_device_by(&device.to_string(), Some(account), name, by).map(drop)
            }
            AccountRequest::RevokeDevice { device } => {
                self.revoke_device_by(&device.to_string(), Some(account), by).map(drop)
            }
            AccountRequest::LinkIdentity { .. } => {
                let Identity { issuer, subject, shown, .. } = identity.ok_or(AccountError::Unavailable)?;
                self.link(issuer, subject, shown, account, by)
            }
            AccountRequest::UnlinkIdentity { issuer, subject } => {
                self.unlink_own(issuer, subject, account, by)
            }
            AccountRequest::Overview => return self.overview(account),
            AccountRequest::Audit { before } => {
                let records = self.audit(Some(account), *before, limits::AUDIT_PAGE).map_err(of_directory)?;
                return Ok(AccountAnswer::Audit(records));
            }
            AccountRequest::Erase { after } => {
                let (least, longest) = (limits::ERASURE_LEAST, limits::ERASURE_LONGEST);
                if !(least..=longest).contains(after) {
                    let (least, longest) = (least.as_secs(), longest.as_secs());
                    let reason = format!("an account is erased after {least} to {longest} seconds");
                    return Err(AccountError::Bad(reason));
                }
                let at = self.erase_account_by(account, *after, by).map_err(of_directory)?;
                return Ok(AccountAnswer::ErasedAt(at));
            }
            AccountRequest::Keep => self.keep_account_by(account, by),
        };
        done.map(|()| AccountAnswer::Done).map_err(of_directory)
    }

    fn overview(&self, account: &str) -> Result<AccountAnswer> {
        let found = self.account(account).map_err(of_directory)?;
        let Account { name, created_at, erase_at, .. } = found;
        let stored = self.stored(Some(account)).map_err(|error| {
            tracing::error!(%error, "what an account has stored is not known");
            AccountError::Unavailable
        })?;
        let Stored { bytes: stored_bytes, documents } = stored.get(account).copied().unwrap_or_default();
        Ok(AccountAnswer::Overview(Overview { name, created_at, erase_at, stored_bytes, documents }))
    }
}

fn of_directory(error: DirectoryError) -> AccountError {
    match error {
        DirectoryError::NoDevice(_) | DirectoryError::NoIdentity(_) => AccountError::NotThere,
        DirectoryError::NoAccount(_) => AccountError::NotOffered,
        DirectoryError::BadName(_) => AccountError::Bad(error.to_string()),
        // Whose it is, is nobody else's business.
        DirectoryError::NotErased(_) => AccountError::Conflict("this account is not to be erased".into()),
        DirectoryError::IdentityLinked(_) => {
            AccountError::Conflict("this identity is linked to another account".into())
        }
        error => {
            tracing::error!(%error, "an account cannot be changed");
            AccountError::Unavailable
        }
    }
}
