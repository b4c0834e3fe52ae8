"""Records: the text smolt learns from and is measured on, read from the formats people have, and written back."""

from smolt.data.decisions import Decision, DecisionQuestion
from smolt.data.formats import FORMATS, Format, Kind
from smolt.data.nouns import Answer, Context, Demonstration, Feedback, Preference, Question, Role, Score, Turn
from smolt.data.reading import DataSource, Loaded, Source, load
from smolt.data.writing import preference_row, write_demonstrations, write_preferences, write_questions, write_rows

__all__ = [
    "FORMATS",
    "Answer",
    "Context",
    "DataSource",
    "Decision",
    "DecisionQuestion",
    "Demonstration",
    "Feedback",
    "Format",
    "Kind",
    "Loaded",
    "Preference",
    "Question",
    "Role",
    "Score",
    "Source",
    "Turn",
    "load",
    "preference_row",
    "write_demonstrations",
    "write_preferences",
    "write_questions",
    "write_rows",
]
