"""Assign model slots through a fair queue, and follow the capacity of the endpoints."""

from chatbot.admission.capacity import Capacity
from chatbot.admission.fair_queue import Admission, AdmissionSettings, Place, Rejected, RejectionReason, Started

__all__ = ["Admission", "AdmissionSettings", "Capacity", "Place", "Rejected", "RejectionReason", "Started"]
