//! What devices ask of their own account, done.

use motet_proto::device_key::PublicKey;

use super::{Directory, DirectoryError, Members};
use crate::auth::Principal;
use crate::identity::{Identity, IdentityError};
use crate::own_account::{AccountAnswer, AccountError, AccountRequest};

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
        let done = move || directory.serve_account(&who.account, &request, identity.as_ref());
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
        self.serve_account(account, request, None)
    }

    fn serve_account(
        &self,
        account: &str,
        request: &AccountRequest,
        identity: Option<&Identity>,
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
                self.rename_device(&device.to_string(), Some(account), name).map(drop)
            }
            AccountRequest::RevokeDevice { device } => {
                self.revoke_device(&device.to_string(), Some(account)).map(drop)
            }
            AccountRequest::LinkIdentity { .. } => {
                let Identity { issuer, subject, shown, .. } = identity.ok_or(AccountError::Unavailable)?;
                self.link(issuer, subject, shown, account)
            }
            AccountRequest::UnlinkIdentity { issuer, subject } => self.unlink_own(issuer, subject, account),
        };
        done.map(|()| AccountAnswer::Done).map_err(of_directory)
    }
}

fn of_directory(error: DirectoryError) -> AccountError {
    match error {
        DirectoryError::NoDevice(_) | DirectoryError::NoIdentity(_) => AccountError::NotThere,
        DirectoryError::NoAccount(_) => AccountError::NotOffered,
        DirectoryError::BadName(_) => AccountError::Bad(error.to_string()),
        // Whose it is, is nobody else's business.
        DirectoryError::IdentityLinked(_) => {
            AccountError::Conflict("this identity is linked to another account".into())
        }
        error => {
            tracing::error!(%error, "an account cannot be changed");
            AccountError::Unavailable
        }
    }
}
