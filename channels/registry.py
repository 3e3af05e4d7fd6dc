"""The channels there are.

Adding one is one file, one line here, and one entry in the contract suite.
"""

from __future__ import annotations

from collections.abc import Callable

from channels.apprise import AppriseChannel
from channels.protocol import Channel, Clock
from channels.slack import SlackChannel
from channels.smtp import SmtpChannel
from channels.webhook import WebhookChannel
from schemas.notifications import ChannelKind
from schemas.settings import Settings

__all__ = ["CHANNELS", "Channel", "Clock"]

CHANNELS: dict[ChannelKind, Callable[[Settings, Clock], Channel]] = {
    ChannelKind.EMAIL: SmtpChannel,
    ChannelKind.WEBHOOK: WebhookChannel,
    ChannelKind.SLACK: SlackChannel,
    ChannelKind.APPRISE: AppriseChannel,
}
