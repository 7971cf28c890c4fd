"""The adaptive jobs with chunks of their declared size: growth (`scripts.load.rules`) is measured with these."""

from __future__ import annotations

from jobs.campaigns import ProcessRetellAICampaignJob
from jobs.reminders import SendAppointmentReminderJob
from jobs.sentiment import AnalyzeCallSentimentJob
from jobs.staff import BulkAssignStaffToEventTypesJob


class FixedCampaign(ProcessRetellAICampaignJob):
    adaptive = False


class FixedReminders(SendAppointmentReminderJob):
    adaptive = False


class FixedAssignments(BulkAssignStaffToEventTypesJob):
    adaptive = False


class FixedSentiment(AnalyzeCallSentimentJob):
    adaptive = False
