"""Decides whether the API refuses single customers or the whole campaign. No I/O."""

from __future__ import annotations

from rqmem.errors import ConfigError

ALIKE, FEWEST_ALIKE = 20, 3


class Refusals:
    """The API's answers to one execution of a campaign's job, customer by customer.

    Args:
        out_of: customers of the campaign; None: many.

    Attributes:
        alike: ids of those who were refused in a row, the last of them, all with the same words.
    """

    def __init__(self, out_of: int | None = None) -> None:
        self.alike: list[int] = []
        self._enough = ALIKE if out_of is None else min(ALIKE, max(FEWEST_ALIKE, out_of))
        self._words = ""
        self._any_accepted = False

    def accepted(self) -> None:
        """The API has taken a call, so what it refuses from now on are customers."""
        self._any_accepted = True

    def refused(self, customer_id: int, words: str) -> None:
        if words != self._words:
            self.alike, self._words = [], words
        self.alike.append(customer_id)

    @property
    def of_the_campaign(self) -> bool:
        """Whether the API refuses the campaign: it took no call, and refused enough of them in a row."""
        return not self._any_accepted and len(self.alike) >= self._enough

    def error(self, campaign_id: int) -> ConfigError:
        """The error for the person who has to mend the campaign."""
        return ConfigError(
            f"Retell refuses all calls of campaign {campaign_id}, {len(self.alike)} in a row: {self._words}; "
            "mend its from_number, agent_id or customers, then run it again"
        )
