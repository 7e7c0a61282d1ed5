"""Who gets a model slot and when: a fair queue before as many slots as the endpoints have."""

from chatbot.admission.capacity import Capacity
from chatbot.admission.fair_queue import Admission, AdmissionSettings, Place, Rejected, RejectionReason, Started

__all__ = ["Admission", "AdmissionSettings", "Capacity", "Place", "Rejected", "RejectionReason", "Started"]
