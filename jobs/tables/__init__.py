"""The tables of the reference application, one module for each part of the business.

Importing the package makes all of them known to `Base.metadata`.
"""

from jobs.tables.appointments import Appointment, AppointmentStatus, Reminder, ReminderStatus
from jobs.tables.base import Base, UtcDateTime, utc_now
from jobs.tables.calls import Agent, AgentSentiment, Call, CallSentiment, SentimentOutcome, TranscriptFormat, Voice
from jobs.tables.campaigns import OPEN, BatchStatus, Campaign, CampaignBatch, CampaignStatus, Customer, CustomerStatus
from jobs.tables.staff import (
    AssignmentRequest,
    AssignmentRole,
    AssignmentRun,
    AssignmentSkip,
    EventType,
    SkipReason,
    Staff,
    StaffAssignment,
    StagedAssignment,
)
