//! What has to be done now and then: prekeys, the token, old records.

use martlet_protocol::problem::Code;

use super::Client;
use crate::error::ClientError;

impl Client {
    /// Uploads prekeys that are due, rotates the token if its end is near, forgets what is old.
    ///
    /// # Errors
    /// The first step that failed; all can be tried again.
    pub async fn upkeep(&self, one_time_stock: Option<usize>) -> Result<(), ClientError> {
        let stock = one_time_stock.unwrap_or(crate::device::ONE_TIME_TARGET);
        self.device(|device| device.forget_old())?;
        if let Some(upload) = self.device(|device| device.due_prekeys(stock))? {
            match self.inner.api.upload_prekeys(&upload).await {
                Ok(_) => self.device(|device| device.on_prekeys_uploaded(&upload))?,
                Err(error) if error.code() == Some(Code::TooManyPrekeys) => {
                    self.device(|device| device.on_prekeys_refused())?;
                    return Err(error);
                }
                Err(error) => return Err(error),
            }
        }
        if self.device(|device| device.is_token_due()) {
            let session = self.inner.api.rotate_token().await?;
            self.take_session(&session)?;
        }
        Ok(())
    }
}
