//! `POST /v1/console-links`: a device that is signed in gets a link to the console for its own account.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::IntoResponse;
use motet_proto::device_key::PublicKey;
use serde_json::json;

use super::State;
use crate::directory::DirectoryError;
use crate::limits;
use crate::own_account::AccountError;
use crate::own_routes;
use crate::routes::{Answered, Asked, Head, answer, unavailable};

/// Answers with the path of a link, to be put behind the address of the relay, and with how many seconds it is good.
pub(super) async fn make(state: Arc<State>, head: Head) -> Answered {
    let asked = Asked::admit(head).await?;
    let not_offered = || {
        let error = AccountError::NotOffered;
        (own_routes::status(&error), error.to_string()).into_response()
    };
    let (Some(_), Some(key)) = (asked.who().device, asked.who().token) else { return Err(not_offered()) };
    let account = asked.who().account.clone();
    let made =
        state.ask(move |directory| directory.create_console_link(Some(&account), Some(&PublicKey(key))));
    match made.await {
        Ok(Ok(link)) => {
            let seconds = limits::CONSOLE_LINK_LIFETIME.as_secs();
            let told = json!({ "path": format!("/console/link/{link}"), "expires_in": seconds });
            Ok(answer(StatusCode::CREATED, &told))
        }
        Ok(Err(DirectoryError::NoAccount(_))) => Err(not_offered()),
        Ok(Err(error)) => {
            tracing::error!(%error, "no link to the console can be made");
            Err(unavailable(&AccountError::Unavailable.to_string()))
        }
        Err(refusal) => Err(unavailable(&refusal.reason)),
    }
}
